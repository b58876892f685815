//! What is wrong with a topology file: all of it at once, each with its line and its remedy.

use serde::Serialize;
use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Line of the file, from 1.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.message, self.remedy)
    }
}

/// Everything that is wrong, by line; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// `None` when there are none.
    pub(crate) fn new(mut problems: Vec<Problem>) -> Option<Problems> {
        problems.sort();
        problems.dedup();
        (!problems.is_empty()).then_some(Problems(problems))
    }

    /// All of them, by line.
    pub fn all(&self) -> &[Problem] {
        &self.0
    }

    /// One line each, as compilers print them: `file:line: what: remedy`.
    pub fn text(&self, file: &str) -> String {
        self.0.iter().map(|p| format!("{file}:{}: {}: {}\n", p.line, p.message, p.remedy)).collect()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
