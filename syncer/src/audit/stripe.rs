//! How many slots are compared at once: as many as make a question worth its round trip, and no more than
//! can be read in one go.

/// Slots of the first stripe, ...
const SLOTS_FIRST: u16 = 64;
/// ... and of any: twice as many as before while a stripe holds few rows, half as many when it holds
/// more than this.
pub const SLOTS_MAX: u16 = 2048;
const ROWS: u64 = 32 << 10;

/// The width of the next stripe, in slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Width(u16);

impl Default for Width {
    fn default() -> Width {
        Width(SLOTS_FIRST)
    }
}

impl Width {
    /// How many slots.
    pub fn slots(self) -> u16 {
        self.0
    }

    /// After a stripe that held so many rows.
    pub fn after(self, rows: u64) -> Width {
        Width(match rows {
            rows if rows > ROWS => (self.0 / 2).max(1),
            rows if rows < ROWS / 4 => (self.0 * 2).min(SLOTS_MAX),
            _ => self.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stripe_follows_the_rows_within_its_limits() {
        let (mut wide, mut narrow) = (Width::default(), Width::default());
        assert_eq!(wide.after(ROWS), wide);
        for _ in 0..20 {
            (wide, narrow) = (wide.after(0), narrow.after(u64::MAX));
        }
        assert_eq!((wide.slots(), narrow.slots()), (SLOTS_MAX, 1));
    }
}
