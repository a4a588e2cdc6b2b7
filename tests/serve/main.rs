//! The command `diorama`, as a process with real files, a real port and real signals.

mod events;
mod files;
mod process;
mod stop;
mod webhooks;
