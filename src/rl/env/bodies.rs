//! The names of the bodies on the physics of MuJoCo, which are known without it, too.
//!
//! Invariant: their order is that of the models. Left out: what they are (`mujoco`).

/// Each is at the number of its model.
pub(super) const BODIES: [&str; 5] = [
    "Hopper-v5",
    "Walker2d-v5",
    "HalfCheetah-v5",
    "Ant-v5",
    "Humanoid-v5",
];
