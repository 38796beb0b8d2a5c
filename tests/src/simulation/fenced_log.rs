//! A model of what Raft gives the leader: one ordered log, written only by the holder of the newest
//! term. (openraft itself joins the simulation later.)

use drover_core::command::Command;

/// The log, and who may write it.
#[derive(Debug, Default)]
pub struct FencedLog {
    entries: Vec<Command>,
    term: u64,
    leader: Option<usize>,
}

impl FencedLog {
    /// Everything committed, oldest first; the first entry has index 1.
    pub fn entries(&self) -> &[Command] {
        &self.entries
    }

    /// The newest term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Who leads in it.
    pub fn leader(&self) -> Option<usize> {
        self.leader
    }

    /// A new term, led by `replica`.
    pub fn elect(&mut self, replica: usize) -> u64 {
        self.term += 1;
        self.leader = Some(replica);
        self.term
    }

    /// Nobody leads until the next election.
    pub fn depose(&mut self) {
        self.leader = None;
    }

    /// Commits a command of `replica`, if it still leads in `term`.
    ///
    /// # Errors
    /// The command, if it does not.
    pub fn propose(
        &mut self,
        replica: usize,
        term: u64,
        command: Box<Command>,
    ) -> Result<(), Box<Command>> {
        if self.term != term || self.leader != Some(replica) {
            return Err(command);
        }
        self.entries.push(*command);
        Ok(())
    }
}
