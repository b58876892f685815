//! What a person sees: lines as things happen, a live line about lag, and a prompt.
//!
//! On a terminal the live line stands above the prompt and is redrawn in place, with the cursor
//! saved and restored, so that what is being typed stays. Elsewhere it is an ordinary line now and
//! then.

use parking_lot::Mutex;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The live line, where it cannot be redrawn, is repeated this often.
const REPEAT: Duration = Duration::from_secs(10);
const PROMPT: &str = "demo> ";

/// Standard output. All that the demo prints goes through here.
pub struct Screen {
    terminal: bool,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Whether commands are read here.
    prompt: bool,
    /// The cursor stands behind the prompt, under the live line.
    waiting: bool,
    live: String,
    told: Option<Instant>,
}

impl Screen {
    /// A screen with a prompt, or without.
    pub fn new(prompt: bool) -> Screen {
        let terminal = std::io::stdout().is_terminal();
        let inner = Inner { prompt, waiting: false, live: String::new(), told: None };
        Screen { terminal, inner: Mutex::new(inner) }
    }

    /// Prints a line or several.
    pub fn say(&self, text: &str) {
        let mut inner = self.inner.lock();
        let text = text.trim_end();
        let mut out = String::new();
        if self.terminal {
            out += if inner.waiting { "\x1b[1A\r\x1b[J" } else { "\r\x1b[K" };
        }
        out += text;
        out += "\n";
        self.draw_bottom(&inner, inner.waiting, &mut out);
        put(&out);
        inner.told = None;
    }

    /// Shows that a command can be typed.
    pub fn wait_for_command(&self) {
        let mut inner = self.inner.lock();
        inner.waiting = true;
        let mut out = String::new();
        self.draw_bottom(&inner, true, &mut out);
        put(&out);
    }

    /// A line was typed: the cursor stands below the prompt.
    pub fn command_read(&self) {
        self.inner.lock().waiting = false;
    }

    /// No more commands come from here.
    pub fn close_prompt(&self) {
        let mut inner = self.inner.lock();
        if inner.prompt && self.terminal {
            put("\n");
        }
        (inner.prompt, inner.waiting) = (false, false);
    }

    /// Prints the last lines: nothing is live any more.
    pub fn finish(&self, text: &str) {
        self.close_prompt();
        self.inner.lock().live.clear();
        self.say(text);
    }

    /// Replaces the live line.
    pub fn live(&self, line: String) {
        let mut inner = self.inner.lock();
        let changed = inner.live != line;
        inner.live = line;
        if inner.live.is_empty() || !changed {
            return;
        }
        if !self.terminal {
            if inner.told.is_none_or(|told| told.elapsed() > REPEAT) {
                inner.told = Some(Instant::now());
                put(&format!("{}\n", inner.live));
            }
        } else if inner.waiting {
            // Save the cursor, redraw the line above, come back.
            put(&format!("\x1b7\x1b[1A\r\x1b[K{}\x1b8", inner.live));
        } else if !inner.prompt {
            put(&format!("\r\x1b[K{}", inner.live));
        }
    }

    fn draw_bottom(&self, inner: &Inner, prompt: bool, out: &mut String) {
        if !self.terminal {
            return;
        }
        if prompt && inner.prompt {
            *out += &format!("{}\n{PROMPT}", inner.live);
        } else if !inner.prompt {
            *out += &inner.live;
        }
    }
}

/// Nobody may be left to read it: that ends nothing.
fn put(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
