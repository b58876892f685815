//! `flotilla demo`: real processes on this machine, datacenters apart by an emulated network.
//!
//! A process is never restarted by itself. Everything ends with the demo, in whatever way it ends.

mod control;
mod files;
pub mod fleet;
pub mod layout;
mod roads;
mod run;
mod screen;
mod show;
pub mod world;

use crate::exit::{self, Exit};
use crate::serve::{self, Stop};
use crate::state::StateFile;
use anyhow::Context;
use clap::Args;
use control::Orders;
use fleet::Fleet;
use flotilla_chaos::process::Death;
use flotilla_chaos::wan::parse_duration;
use layout::{Layout, Mode, Wish};
use run::Demo;
use screen::Screen;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Notify, mpsc};

/// A demo that is not ready by then will not be.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// The longest round trip that groups over several datacenters can be timed for.
const RTT_MAX: Duration = Duration::from_secs(2);

/// What `flotilla demo` takes.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// A cluster in each datacenter with links between them, or one cluster over all.
    #[arg(long, default_value = "async")]
    mode: Mode,
    /// Names of the datacenters. With one there is one plain cluster.
    #[arg(long, value_delimiter = ',', default_value = "east,west")]
    datacenters: Vec<String>,
    /// Nodes in each datacenter. Default: 3, or 1 when stretched over three datacenters or more.
    #[arg(long)]
    nodes: Option<usize>,
    /// Syncers of each cluster that has links.
    #[arg(long, default_value_t = 1)]
    syncers: usize,
    /// Round trip time between any two datacenters.
    #[arg(long, default_value = "60ms", value_parser = parse_duration)]
    rtt: Duration,
    /// First port; each datacenter takes the next hundred.
    #[arg(long, default_value_t = 7000)]
    port: u16,
    /// Where configurations, certificates, logs and data go. Data there is used again. Default: a
    /// directory that is deleted in the end.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where the state file goes, for tools. Default: in the directory.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Take no commands from the standard input.
    #[arg(long)]
    no_prompt: bool,
}

/// What `flotilla demo-ctl` takes.
#[derive(Debug, Args)]
pub struct CtlArgs {
    /// State file of the demo.
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// The command, as at the demo's prompt: wan, cut, heal, kill, restart, pause, resume, status,
    /// stop, help.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    words: Vec<String>,
}

/// Runs `flotilla demo-ctl`.
pub fn control(args: CtlArgs) -> anyhow::Result<ExitCode> {
    let state = StateFile::load(&args.state)?;
    let Some(demo) = state.demo else {
        return Err(Exit::usage(format!("{} is not of a demo", args.state.display())));
    };
    let answer = serve::block_on(control::send(&demo.control, &args.words))?;
    if answer.code == 0 {
        println!("{}", answer.text.trim_end());
    } else {
        eprintln!("flotilla: {}", answer.text.trim_end());
    }
    Ok(ExitCode::from(answer.code))
}

/// Runs `flotilla demo`.
pub fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    if args.rtt >= RTT_MAX {
        return Err(Exit::usage(format!("--rtt must be below {RTT_MAX:?}")));
    }
    let layout = Layout::new(&Wish {
        mode: args.mode,
        datacenters: args.datacenters.clone(),
        nodes: args.nodes,
        syncers: args.syncers,
        port: args.port,
        ..Wish::default()
    })?;
    let place = Place::of(&args)?;
    let result = serve::block_on(serve_demo(&args, layout, &place));
    place.clean(result.is_ok());
    result
}

/// Where the demo keeps its things.
struct Place {
    dir: PathBuf,
    state: PathBuf,
    /// Made for this run, and deleted after it.
    temporary: bool,
}

impl Place {
    fn of(args: &DemoArgs) -> anyhow::Result<Place> {
        let temporary = args.dir.is_none();
        let name = format!("flotilla-demo-{}", std::process::id());
        let dir = args.dir.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
        let dir = std::path::absolute(dir)?;
        let state = args.state.clone().unwrap_or_else(|| dir.join("state.json"));
        let state = std::path::absolute(state)?;
        if args.state.is_some() && !state.parent().is_some_and(Path::is_dir) {
            let line = format!("--state {}: there is no such directory", state.display());
            return Err(Exit::usage(line));
        }
        Ok(Place { dir, state, temporary })
    }

    fn clean(&self, ended_well: bool) {
        // The logs of a demo that failed are wanted.
        if self.temporary && ended_well {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

async fn serve_demo(args: &DemoArgs, layout: Layout, place: &Place) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let began = Instant::now();
    let processes = layout.processes().len();
    // A second demo in the directory must find out before it has overwritten anything.
    let (orders, queue) = control::orders();
    let socket = control::socket_path(&place.dir);
    let (fleet, mut deaths) = {
        control::refuse_running(&socket).await?;
        Fleet::start(layout, &place.dir, args.rtt).await?
    };
    // A file of an earlier demo would be taken for ours.
    let _ = std::fs::remove_file(&place.state);
    control::listen(&socket, orders.clone()).await?;
    let prompt = !args.no_prompt && !in_background();
    let screen = Screen::new(prompt);
    screen.say(&format!(
        "starting {processes} processes, each with its log in {}",
        place.dir.join("logs").display()
    ));
    tokio::select! {
        ready = wait_ready(&fleet, &mut deaths, &screen) => {
            if let Err(error) = ready {
                fleet.stop().await;
                return Err(error);
            }
        }
        signal = stop.asked() => {
            screen.say(&format!("{signal}: stopping"));
            stop.leave(fleet.stop()).await;
            return Ok(ExitCode::SUCCESS);
        }
    }
    let demo = Arc::new(Demo {
        fleet,
        screen,
        state: place.state.clone(),
        control: socket,
        stop: Notify::new(),
        saving: Mutex::default(),
    });
    demo.save().await.with_context(|| format!("cannot write {}", place.state.display()))?;
    let took = began.elapsed();
    let layout = &demo.fleet.layout;
    demo.screen.say(&show::welcome(layout, args.rtt, took, &place.state, &place.dir));
    tokio::spawn(demo.clone().watch_deaths(deaths));
    tokio::spawn(demo.clone().watch_lag());
    tokio::spawn(demo.clone().take_orders(queue));
    if prompt {
        read_commands(demo.clone(), orders)?;
    }
    let why = tokio::select! {
        signal = stop.asked() => signal,
        () = demo.stop.notified() => "stop",
    };
    demo.screen.finish(&format!("{why}: stopping {processes} processes"));
    // A file that names processes that are gone would mislead.
    let _ = std::fs::remove_file(&demo.state);
    stop.leave(demo.fleet.stop()).await;
    let _ = std::fs::remove_file(&demo.control);
    Ok(ExitCode::SUCCESS)
}

/// Waits until all is at rest. A process that dies meanwhile ends the attempt.
async fn wait_ready(
    fleet: &Fleet,
    deaths: &mut mpsc::Receiver<Death>,
    screen: &Screen,
) -> anyhow::Result<()> {
    tokio::select! {
        settled = fleet.settled(START_PATIENCE) => settled,
        Some(death) = deaths.recv() => {
            let said = last_lines(&death.log);
            screen.say(&said);
            Err(Exit::error(exit::FAILED, death.to_string()))
        }
    }
}

/// The end of a log.
fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

/// Reads commands in a thread of its own: the standard input cannot be waited for together with
/// other things. Its end ends the prompt, not the demo.
fn read_commands(demo: Arc<Demo>, orders: Orders) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Handle::current();
    let read = move || {
        demo.screen.wait_for_command();
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            demo.screen.command_read();
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            if !words.is_empty() {
                let answer = runtime.block_on(control::give(&orders, words));
                demo.screen.say(&answer.text);
            }
            demo.screen.wait_for_command();
        }
        demo.screen.close_prompt();
    };
    std::thread::Builder::new().name("prompt".into()).spawn(read)?;
    Ok(())
}

/// Whether this runs in the background of a terminal, where reading from it would stop us.
fn in_background() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses: state, parent, process group, session, terminal, and the
    // process group in the terminal's foreground, -1 without a terminal.
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<i64> = rest.split_whitespace().skip(1).flat_map(str::parse).collect();
    let terminal_input = std::io::IsTerminal::is_terminal(&std::io::stdin());
    match (fields.get(1), fields.get(4)) {
        (Some(own), Some(foreground)) => terminal_input && *foreground != -1 && own != foreground,
        _ => false,
    }
}
