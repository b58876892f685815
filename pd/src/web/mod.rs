//! PD's http port.

mod overview;
