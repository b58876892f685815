//! Small file systems that can be filled from outside: an image with ext4 in a file, mounted by a loop
//! device. Only root may mount.
//!
//! What is not to be had is taken by a file beside the data, the ballast.

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The ballast grows by such pieces, and by smaller ones where these do not fit.
const PIECE_MAX: u64 = 16 << 20;
/// Smallest piece: a block.
const PIECE_MIN: u64 = 4 << 10;

/// A file system, mounted until this is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    mount: PathBuf,
    image: PathBuf,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
#[error("cannot mount a small file system at {mount}: {why}; that takes root and loop devices")]
pub struct NoDisk {
    mount: String,
    why: String,
}

impl SmallDisk {
    /// Makes a file system of so many bytes and mounts it at `mount`, a directory that is created. Its
    /// image stands beside it.
    pub fn mount(mount: &Path, bytes: u64) -> Result<SmallDisk, NoDisk> {
        let failed = |why: String| NoDisk { mount: mount.display().to_string(), why };
        let image = mount.with_extension("img");
        let made = || -> io::Result<()> {
            std::fs::create_dir_all(mount)?;
            File::create(&image)?.set_len(bytes)
        };
        made().map_err(|error| failed(error.to_string()))?;
        // All blocks for everybody: what is free for us is free for the node.
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image)).map_err(failed)?;
        run(Command::new("mount").args(["-o", "loop"]).args([&image, mount])).map_err(failed)?;
        Ok(SmallDisk { mount: mount.to_owned(), image })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Bytes that are free.
    pub fn free(&self) -> io::Result<u64> {
        let stat = statvfs(&self.mount)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Lets the ballast grow until no more than `leave` bytes are free, as far as that goes.
    pub fn squeeze(&self, leave: u64) -> io::Result<()> {
        let ballast = OpenOptions::new().create(true).append(true).open(self.ballast())?;
        let mut piece = PIECE_MAX;
        while piece >= PIECE_MIN {
            let over = self.free()?.saturating_sub(leave);
            if over < PIECE_MIN {
                break;
            }
            let end = ballast.metadata()?.len();
            let piece_now = piece.min(over);
            match fallocate(&ballast, FallocateFlags::empty(), end, piece_now) {
                Ok(()) => {}
                Err(Errno::NOSPC) => piece = piece_now / 2,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives all of the ballast back.
    pub fn give_back(&self) -> io::Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is about to end may still hold a file.
        if let Err(why) = run(Command::new("umount").arg("-l").arg(&self.mount)) {
            tracing::error!(mount = %self.mount.display(), why, "stays mounted");
        }
        let _ = std::fs::remove_file(&self.image);
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}", said.lines().next().unwrap_or("it failed and said nothing").trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_when_it_is_filled_and_refusal_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let disk = match SmallDisk::mount(&dir.path().join("disk"), 16 << 20) {
            Ok(disk) => disk,
            Err(error) => {
                let line = error.to_string();
                assert!(line.starts_with("cannot mount a small file system at "), "{line}");
                assert_eq!(line.lines().count(), 1, "{line}");
                return;
            }
        };
        disk.squeeze(4 << 20).unwrap();
        let free = disk.free().unwrap();
        assert!((3 << 20..=4 << 20).contains(&free), "{free}");
        disk.squeeze(0).unwrap();
        let full = std::fs::write(disk.path().join("more"), vec![1; 1 << 20]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        disk.give_back().unwrap();
        disk.give_back().unwrap();
        assert!(disk.free().unwrap() > 8 << 20);
        let mount = disk.path().to_owned();
        drop(disk);
        assert_eq!(std::fs::read_dir(mount).unwrap().count(), 0, "it is not mounted any more");
    }
}
