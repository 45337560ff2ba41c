//! Replicas between a few nodes, by hand and by chance.

use super::*;
