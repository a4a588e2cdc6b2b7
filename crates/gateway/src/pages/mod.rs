//! Pages for people: the index, the explorer and their files.

pub(crate) mod assets;
pub(crate) mod explorer;
pub(crate) mod index;
