//! A running demo: carries out commands, tells of deaths, keeps the state file.

use super::control::{self, Answer, Change, Order, Verb};
use super::fleet::Fleet;
use super::layout::Process;
use super::screen::Screen;
use super::show;
use crate::exit;
use flotilla_chaos::process::{Death, State};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify, mpsc};

/// A restarted process says that it is ready within this, or the command says that it is not.
const RESTART_PATIENCE: Duration = Duration::from_secs(15);
/// After a restart the state file waits this long for everything to be at rest.
const REST_PATIENCE: Duration = Duration::from_secs(10);
/// Syncers report twice a second.
const LIVE_PERIOD: Duration = Duration::from_secs(1);

/// See the module.
pub struct Demo {
    /// What it runs.
    pub fleet: Fleet,
    /// Where it shows itself.
    pub screen: Screen,
    /// Where the state file goes.
    pub state: PathBuf,
    /// The socket for commands.
    pub control: PathBuf,
    /// Somebody asked for the end.
    pub stop: Notify,
    /// One at a time writes the state file.
    pub saving: Mutex<()>,
}

impl Demo {
    /// Writes the state file.
    pub async fn save(&self) -> std::io::Result<()> {
        let _one_at_a_time = self.saving.lock().await;
        self.fleet.state(&self.control).save(&self.state)
    }

    /// Tells of deaths, for ever.
    pub async fn watch_deaths(self: Arc<Self>, mut deaths: mpsc::Receiver<Death>) {
        while let Some(death) = deaths.recv().await {
            let again = format!("start it again with: restart {}", death.name);
            self.screen.say(&format!("{death}\n{again}"));
        }
    }

    /// Keeps the live line, for ever.
    pub async fn watch_lag(self: Arc<Self>) {
        if self.fleet.layout.clusters.len() < 2 {
            return;
        }
        let mut tick = tokio::time::interval(LIVE_PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.screen.live(show::live_line(&self.fleet.statuses().await));
        }
    }

    /// Carries out orders, each on its own, so that one that waits holds up no other.
    pub async fn take_orders(self: Arc<Self>, mut orders: mpsc::Receiver<Order>) {
        while let Some(Order { words, answer }) = orders.recv().await {
            let demo = self.clone();
            tokio::spawn(async move {
                let said = match control::parse(&words) {
                    Ok(verb) => demo.carry_out(verb).await,
                    Err(explained) => explained,
                };
                // Who asked may be gone.
                let _ = answer.send(said);
            });
        }
    }

    async fn carry_out(&self, verb: Verb) -> Answer {
        let done = match verb {
            Verb::Wan { a, b, change } => self.wan(&a, &b, &change),
            Verb::Cut { from, to } => self.cut(&from, &to),
            Verb::Heal => {
                self.fleet.relay.heal();
                Ok("healed: everything passes again".to_owned())
            }
            Verb::Kill { name } => self.kill(&name).await,
            Verb::Restart { name } => self.restart(&name).await,
            Verb::Pause { name } => self.each(&name, "paused", Fleet::pause),
            Verb::Resume { name } => self.each(&name, "resumed", Fleet::resume),
            Verb::Status => Ok(show::overview(&self.fleet, &self.fleet.statuses().await)),
            Verb::Stop => {
                self.stop.notify_one();
                Ok("stopping".to_owned())
            }
        };
        match done {
            Ok(text) => Answer { code: 0, text },
            Err(error) => Answer { code: exit::number_of(&error), text: format!("{error:#}") },
        }
    }

    fn wan(&self, a: &str, b: &str, change: &Change) -> anyhow::Result<String> {
        self.fleet.check_datacenter(a)?;
        self.fleet.check_datacenter(b)?;
        let relay = &self.fleet.relay;
        relay.update_both(a, b, |path| change.apply(path));
        let path = relay.path(a, b);
        Ok(format!("{a} <-> {b}: round trip {:?}; each way {path}", path.delay * 2))
    }

    fn cut(&self, from: &str, to: &str) -> anyhow::Result<String> {
        self.fleet.check_datacenter(from)?;
        self.fleet.check_datacenter(to)?;
        self.fleet.relay.cut(from, to);
        Ok(format!("cut: nothing travels from {from} to {to} until `heal`"))
    }

    async fn kill(&self, name: &str) -> anyhow::Result<String> {
        let victims = self.in_state(name, |state| matches!(state, State::Running { .. }))?;
        let kills = victims.iter().map(|one| self.fleet.kill(&one.name));
        for result in futures::future::join_all(kills).await {
            result?;
        }
        Ok(format!("killed {}", names(&victims)))
    }

    async fn restart(&self, name: &str) -> anyhow::Result<String> {
        let dead = self.in_state(name, |state| matches!(state, State::Ended { .. }))?;
        for one in &dead {
            self.fleet.restart(&one.name)?;
        }
        let starts = dead.iter().map(|one| self.fleet.ready(&one.name, RESTART_PATIENCE));
        let ready: Result<Vec<()>, _> =
            futures::future::join_all(starts).await.into_iter().collect();
        // Whoever waits for the file may use what it names at once, if that can be had.
        if ready.is_ok() && self.fleet.is_whole() {
            let _ = self.fleet.settled(REST_PATIENCE).await;
        }
        self.save().await?;
        ready?;
        Ok(format!("restarted {}", names(&dead)))
    }

    fn each(
        &self,
        name: &str,
        done: &str,
        act: fn(&Fleet, &str) -> Result<(), flotilla_chaos::process::ProcessError>,
    ) -> anyhow::Result<String> {
        let all = self.fleet.named(name)?;
        for one in &all {
            act(&self.fleet, &one.name)?;
        }
        Ok(format!("{done} {}", names(&all)))
    }

    /// The processes that `name` means; of a datacenter only those in the right state.
    fn in_state(&self, name: &str, fits: fn(&State) -> bool) -> anyhow::Result<Vec<Process>> {
        let all = self.fleet.named(name)?;
        if all.len() == 1 {
            return Ok(all);
        }
        let states = self.fleet.states();
        let found: Vec<Process> =
            all.into_iter().filter(|one| states.get(&one.name).is_some_and(fits)).collect();
        anyhow::ensure!(!found.is_empty(), "no process in {name} is in the state for that");
        Ok(found)
    }
}

fn names(processes: &[Process]) -> String {
    processes.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(" ")
}
