//! To come in this crate's next commit.
