//! Who this volume belongs to: the replica's number and the group's id, in a small file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::types::{ReplicaId, random_word};
use crate::whole_file;

/// The content of the identity file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The replica this volume was made for.
    pub replica: ReplicaId,
    /// The group; `None` until the replica was told or founded one.
    pub cluster: Option<String>,
    /// When the volume was first used.
    pub created: Timestamp,
}

impl Identity {
    fn check(&self, theirs: &str) -> Result<(), IdentityError> {
        match &self.cluster {
            Some(ours) if ours != theirs => {
                Err(IdentityError::OtherCluster { ours: ours.clone(), theirs: theirs.to_owned() })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Why a volume can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file can't be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The volume belongs to another replica.
    #[error("the volume at {path} belongs to replica {found}, and this is replica {configured}")]
    OtherReplica {
        /// The file.
        path: PathBuf,
        /// Whose volume it is.
        found: ReplicaId,
        /// Who this is.
        configured: ReplicaId,
    },
    /// A peer speaks for another group.
    #[error("this replica belongs to group {ours}, and the sender to {theirs}")]
    OtherCluster {
        /// Our group.
        ours: String,
        /// The sender's.
        theirs: String,
    },
    /// A group spoke to this replica while it was about to found one.
    #[error("this replica was told that it belongs to group {0}")]
    InGroup(String),
}

/// The identity file, kept open for the group's id to be set once.
#[derive(Debug)]
pub struct IdentityFile {
    path: PathBuf,
    identity: Mutex<Identity>,
}

impl IdentityFile {
    /// Reads the file in `folder`, or makes it for `replica`.
    ///
    /// # Errors
    /// The file can't be read or written, or is another replica's.
    pub fn open(folder: &Path, replica: ReplicaId) -> Result<Self, IdentityError> {
        let path = folder.join("identity.json");
        let failed = |source| IdentityError::Io { path: path.clone(), source };
        let identity = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Identity>(&bytes)
                .map_err(|error| failed(io::Error::other(error)))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Identity { replica, cluster: None, created: Timestamp::now() };
                write_durably(&path, &identity).map_err(failed)?;
                identity
            }
            Err(error) => return Err(failed(error)),
        };
        if identity.replica != replica {
            let found = identity.replica;
            return Err(IdentityError::OtherReplica { path, found, configured: replica });
        }
        Ok(Self { path, identity: Mutex::new(identity) })
    }

    /// The group's id, once known.
    pub fn cluster(&self) -> Option<String> {
        self.lock().cluster.clone()
    }

    /// Makes a new group's id and keeps it durably, in place of `known`: what [`Self::cluster`] said when
    /// the peers were asked. A group that is founded is another than any there was, also where this
    /// volume had lost its log and not its identity.
    ///
    /// # Errors
    /// The file can't be written, or this replica was told of a group meanwhile.
    pub fn found(&self, known: Option<&str>) -> Result<String, IdentityError> {
        let mut identity = self.lock();
        if let Some(cluster) = identity.cluster.as_ref().filter(|told| Some(told.as_str()) != known)
        {
            return Err(IdentityError::InGroup(cluster.clone()));
        }
        let cluster = random_id();
        self.keep(&mut identity, cluster.clone())?;
        Ok(cluster)
    }

    /// Checks a sender's group id against ours; the first one heard becomes ours.
    ///
    /// # Errors
    /// Ours is another, or the file can't be written.
    pub fn adopt(&self, theirs: &str) -> Result<(), IdentityError> {
        let mut identity = self.lock();
        identity.check(theirs)?;
        match &identity.cluster {
            Some(_) => Ok(()),
            None => self.keep(&mut identity, theirs.to_owned()),
        }
    }

    /// Checks a group's id against ours, if we have one.
    ///
    /// # Errors
    /// Ours is another.
    pub fn check(&self, theirs: &str) -> Result<(), IdentityError> {
        self.lock().check(theirs)
    }

    fn keep(&self, identity: &mut Identity, cluster: String) -> Result<(), IdentityError> {
        let changed = Identity { cluster: Some(cluster), ..identity.clone() };
        write_durably(&self.path, &changed)
            .map_err(|source| IdentityError::Io { path: self.path.clone(), source })?;
        *identity = changed;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_durably(path: &Path, identity: &Identity) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut file = File::create(&unfinished)?;
    file.write_all(&serde_json::to_vec_pretty(identity)?)?;
    whole_file::put(&unfinished, path)
}

/// 128 random bits.
fn random_id() -> String {
    format!("{:016x}{:016x}", random_word(), random_word())
}
