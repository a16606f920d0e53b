//! Who may write: the leader, and the lease that every write asks for.

pub(crate) mod leader;
pub(crate) mod lease;
