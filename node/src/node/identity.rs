//! Whose directory this is: a file that is written once and compared at every start.
//!
//! A directory of another node or cluster, or of a newer format, is refused: a replica that starts
//! on a log that is not its own would vote twice.

use flotilla_topology::ids::ClusterId;
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::Path;

/// Newest layout of a data directory that this code writes and opens.
pub const FORMAT: u32 = 1;
/// Groups of a standalone node that was not told how many: enough to use two cores, few enough to stay
/// small.
pub const PARTITIONS_DEFAULT: u32 = 4;
const FILE: &str = "identity.json";

/// What a data directory says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryIdentity {
    /// Layout of the directory.
    pub format: u32,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The node it belongs to.
    pub node: String,
    /// Made at random when the directory was created; PD refuses a known name with another one.
    pub directory: u64,
    /// Groups of a standalone node, if it was made with a number of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
}

impl DirectoryIdentity {
    /// Groups of a standalone node.
    pub fn partitions(&self) -> u32 {
        self.partitions.unwrap_or(PARTITIONS_DEFAULT)
    }
}

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be read or written.
    #[error("cannot use {dir}: {source}")]
    Io {
        /// Which.
        dir: String,
        /// Why.
        source: std::io::Error,
    },
    /// It belongs to something else.
    #[error("{dir} {problem}")]
    Foreign {
        /// Which.
        dir: String,
        /// Whose it is, and what to do.
        problem: String,
    },
}

/// Opens the directory of a node, creating it if it is not there. `partitions` is a standalone node's
/// wish: a new directory keeps it, another one must have been made with it.
pub fn open(
    dir: &Path,
    cluster: ClusterId,
    node: &str,
    partitions: Option<u32>,
) -> Result<DirectoryIdentity, IdentityError> {
    let name = || dir.display().to_string();
    let io = |source| IdentityError::Io { dir: name(), source };
    let foreign = |problem| IdentityError::Foreign { dir: name(), problem };
    std::fs::create_dir_all(dir).map_err(io)?;
    let path = dir.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if std::fs::read_dir(dir).map_err(io)?.next().is_some() {
                let problem = "is not empty and has no identity.json: name an empty directory";
                return Err(foreign(problem.to_owned()));
            }
            let identity = DirectoryIdentity {
                format: FORMAT,
                cluster,
                node: node.to_owned(),
                directory: rand::random::<u64>() >> 11, // exact in JSON numbers of any reader
                partitions,
            };
            write(dir, &path, &identity).map_err(io)?;
            return Ok(identity);
        }
        Err(error) => return Err(io(error)),
    };
    let found: DirectoryIdentity = serde_json::from_str(&text)
        .map_err(|error| foreign(format!("has an identity.json that cannot be read: {error}")))?;
    if found.format > FORMAT {
        return Err(foreign(format!(
            "has format {}, this release knows up to {FORMAT}: start it with a newer release",
            found.format
        )));
    }
    if found.cluster != cluster || found.node != node {
        return Err(foreign(format!(
            "belongs to node `{}` of cluster {}, not to `{node}` of cluster {cluster}: name the \
             right directory",
            found.node, found.cluster
        )));
    }
    let has = found.partitions();
    if let Some(wanted) = partitions.filter(|wanted| *wanted != has) {
        return Err(foreign(format!(
            "was made with {has} partitions, not with {wanted}: leave --partitions out, or name an \
             empty directory"
        )));
    }
    Ok(found)
}

/// Written beside and renamed, so that a crash leaves no half file.
fn write(dir: &Path, path: &Path, identity: &DirectoryIdentity) -> std::io::Result<()> {
    let new = dir.join("identity.json.new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(serde_json::to_string_pretty(identity)?.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_opened_only_by_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("n1");
        let made = open(&dir, ClusterId(1), "n1", None).unwrap();
        assert_eq!(open(&dir, ClusterId(1), "n1", None).unwrap(), made);
        assert_eq!(open(&dir, ClusterId(1), "n1", Some(PARTITIONS_DEFAULT)).unwrap(), made);
        for (cluster, node) in [(2, "n1"), (1, "n2")] {
            let error = open(&dir, ClusterId(cluster), node, None).unwrap_err().to_string();
            assert!(error.contains("belongs to node `n1` of cluster 1"), "{error}");
        }
        let newer = DirectoryIdentity { format: FORMAT + 1, ..made };
        std::fs::write(dir.join(FILE), serde_json::to_string(&newer).unwrap()).unwrap();
        let error = open(&dir, ClusterId(1), "n1", None).unwrap_err().to_string();
        assert!(error.contains("newer release"), "{error}");
    }

    #[test]
    fn a_directory_with_something_else_in_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("photo.jpg"), "x").unwrap();
        assert!(open(dir.path(), ClusterId(1), "n1", None).is_err());
    }

    #[test]
    fn a_directory_keeps_its_number_of_partitions() {
        let temp = tempfile::tempdir().unwrap();
        let (one, four) = (temp.path().join("one"), temp.path().join("four"));
        for (dir, made, has, other) in [(one, Some(1), 1, 4), (four, None, 4, 1)] {
            let made = open(&dir, ClusterId(1), "n1", made).unwrap();
            assert_eq!(open(&dir, ClusterId(1), "n1", None).unwrap(), made);
            assert_eq!(open(&dir, ClusterId(1), "n1", Some(has)).unwrap(), made);
            let error = open(&dir, ClusterId(1), "n1", Some(other)).unwrap_err().to_string();
            let wanted = format!("was made with {has} partitions, not with {other}");
            assert!(error.contains(&wanted), "{error}");
        }
    }
}
