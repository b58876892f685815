//! Holds the clients of one cluster back, for scenarios in which it must not be asked for a while.

use std::sync::Arc;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Clients pass it for each exchange. Clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    lock: Arc<RwLock<()>>,
}

/// Somebody is inside.
pub type Pass = OwnedRwLockReadGuard<()>;

/// Nobody is inside, and nobody comes in, until this is dropped.
pub type Shut = OwnedRwLockWriteGuard<()>;

impl Gate {
    /// Waits while it is shut.
    pub async fn pass(&self) -> Pass {
        Arc::clone(&self.lock).read_owned().await
    }

    /// Lets nobody in, and waits until all who are inside have left.
    pub async fn shut(&self) -> Shut {
        Arc::clone(&self.lock).write_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn nobody_is_inside_while_it_is_shut() {
        let gate = Gate::default();
        let (one, other) = (gate.pass().await, gate.pass().await);
        let shutting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.shut().await }
        });
        drop(one);
        tokio::task::yield_now().await;
        assert!(!shutting.is_finished(), "one is still inside");
        drop(other);
        let shut = shutting.await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(20), gate.pass()).await;
        assert!(early.is_err(), "it is shut");
        drop(shut);
        gate.pass().await;
    }
}
