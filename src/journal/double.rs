//! A journal that misbehaves on demand.
