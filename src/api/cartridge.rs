//! cartridge

pub mod phase;
