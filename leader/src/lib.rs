//! The leader: one of three or five replicas that agree, through Raft, on which nodes there should
//! be, and bring that about.

pub mod raft;
