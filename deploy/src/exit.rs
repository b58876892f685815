//! Exit codes: the part of the command line that scripts rely on. See `README.md`.

use std::process::ExitCode;

/// It failed, or the answer is no: different, unhealthy, not valid.
pub const FAILED: u8 = 1;
/// It was asked wrongly: arguments, a configuration file, a port that is taken.
pub const USAGE: u8 = 2;
/// Nobody answers at the address.
pub const CANNOT_CONNECT: u8 = 3;
/// It did not happen in time.
pub const TIMED_OUT: u8 = 5;
/// No answer can be given yet: it still moves, or a part cannot be reached.
pub const MOVING: u8 = 6;

/// An error with the exit code that it shall become; any other error becomes [`FAILED`].
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Exit {
    code: u8,
    message: String,
}

impl Exit {
    /// An error that ends the program with this code.
    pub fn error(code: u8, message: impl Into<String>) -> anyhow::Error {
        Exit { code, message: message.into() }.into()
    }

    /// [`USAGE`].
    pub fn usage(error: impl std::fmt::Display) -> anyhow::Error {
        Exit::error(USAGE, error.to_string())
    }

    /// [`USAGE`], with all causes in the message.
    pub fn usage_chain(error: anyhow::Error) -> anyhow::Error {
        Exit::error(USAGE, format!("{error:#}"))
    }
}

/// The exit code of an error.
pub fn code_of(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(number_of(error))
}

/// The same as a number.
pub fn number_of(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Exit>().map_or(FAILED, |exit| exit.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_code_under_context() {
        let error = Exit::error(MOVING, "still moving").context("verify");
        assert_eq!(number_of(&error), MOVING);
        assert_eq!(number_of(&anyhow::anyhow!("anything")), FAILED);
    }
}
