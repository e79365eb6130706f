//! The real agent, running on the node of a world.

use crate::world::World;

/// To be replaced.
pub struct Agent<'a> {
    _world: &'a World,
}
