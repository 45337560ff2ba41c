//! The classic control problems as pure functions of state and action.
//!
//! Invariant: `advance` has no branch that depends on the state, so that a loop over many states becomes vector
//! instructions; its numbers are those of Gymnasium's implementations (tests/rl/golden has recordings). Left out: time
//! limits, random numbers and episodes, which [`Classic`](super::Classic) and `Batch` add.

use super::trig::sin_cos;
use crate::rl::rng::Rng;
use crate::rl::space::Space;
use std::f64::consts::PI;

/// The laws of one problem, with `S` numbers of state and `O` of observation.
pub trait Dynamics<const S: usize, const O: usize>: Clone + Send + 'static {
    /// What is observed.
    fn observation_space() -> Space;
    /// What can be done. A choice reaches `advance` as its number.
    fn action_space() -> Space;
    /// Where an episode begins.
    fn initial(rng: &mut Rng) -> [f64; S];
    /// The next state, the reward, and whether the episode is over by the problem's own rules.
    fn advance(state: [f64; S], action: f64) -> ([f64; S], f64, bool);
    /// What is seen of a state.
    fn observe(state: &[f64; S]) -> [f32; O];
}

#[inline(always)]
fn clip(x: f64, low: f64, high: f64) -> f64 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// A pole on a cart, to be kept upright by pushing left or right (Barto, Sutton and Anderson, 1983).
#[derive(Clone)]
pub struct CartPole;

impl Dynamics<4, 4> for CartPole {
    fn observation_space() -> Space {
        Space::symmetric(&[4.8, f32::MAX, 0.418_879_03, f32::MAX])
    }

    fn action_space() -> Space {
        Space::Discrete(2)
    }

    fn initial(rng: &mut Rng) -> [f64; 4] {
        std::array::from_fn(|_| rng.between(-0.05, 0.05))
    }

    #[inline(always)]
    fn advance([x, v, angle, turn]: [f64; 4], action: f64) -> ([f64; 4], f64, bool) {
        const GRAVITY: f64 = 9.8;
        const POLE: f64 = 0.1;
        const TOTAL: f64 = 0.1 + 1.0;
        const LENGTH: f64 = 0.5;
        const POLE_LENGTH: f64 = 0.1 * 0.5;
        const FORCE: f64 = 10.0;
        const TAU: f64 = 0.02;
        const ANGLE: f64 = 12.0 * 2.0 * PI / 360.0;
        let force = if action == 1.0 { FORCE } else { -FORCE };
        let (sin, cos) = sin_cos(angle);
        let push = (force + POLE_LENGTH * (turn * turn) * sin) / TOTAL;
        let spin =
            (GRAVITY * sin - cos * push) / (LENGTH * (4.0 / 3.0 - POLE * (cos * cos) / TOTAL));
        let thrust = push - POLE_LENGTH * spin * cos / TOTAL;
        let next = [
            x + TAU * v,
            v + TAU * thrust,
            angle + TAU * turn,
            turn + TAU * spin,
        ];
        let over = (next[0].abs() > 2.4) | (next[2].abs() > ANGLE);
        (next, 1.0, over)
    }

    #[inline(always)]
    fn observe(state: &[f64; 4]) -> [f32; 4] {
        state.map(|x| x as f32)
    }
}

/// A car in a valley, too weak to drive straight up (Moore, 1990).
#[derive(Clone)]
pub struct MountainCar;

impl Dynamics<2, 2> for MountainCar {
    fn observation_space() -> Space {
        Space::Box {
            low: vec![-1.2, -0.07],
            high: vec![0.6, 0.07],
            shape: vec![2],
        }
    }

    fn action_space() -> Space {
        Space::Discrete(3)
    }

    fn initial(rng: &mut Rng) -> [f64; 2] {
        [rng.between(-0.6, -0.4), 0.0]
    }

    #[inline(always)]
    fn advance([position, velocity]: [f64; 2], action: f64) -> ([f64; 2], f64, bool) {
        let (_, cos) = sin_cos(3.0 * position);
        let velocity = velocity + ((action - 1.0) * 0.001 + cos * -0.0025);
        let velocity = clip(velocity, -0.07, 0.07);
        let position = clip(position + velocity, -1.2, 0.6);
        let stopped = (position == -1.2) & (velocity < 0.0);
        let velocity = if stopped { 0.0 } else { velocity };
        let over = (position >= 0.5) & (velocity >= 0.0);
        ([position, velocity], -1.0, over)
    }

    #[inline(always)]
    fn observe(state: &[f64; 2]) -> [f32; 2] {
        state.map(|x| x as f32)
    }
}

/// The same with an engine of any power between bounds. Gymnasium computes it in `f32` after the first step; the third
/// number of the state says that this one is the first.
#[derive(Clone)]
pub struct MountainCarContinuous;

impl Dynamics<3, 2> for MountainCarContinuous {
    fn observation_space() -> Space {
        MountainCar::observation_space()
    }

    fn action_space() -> Space {
        Space::symmetric(&[1.0])
    }

    fn initial(rng: &mut Rng) -> [f64; 3] {
        [rng.between(-0.6, -0.4), 0.0, 1.0]
    }

    #[inline(always)]
    fn advance([position, velocity, first]: [f64; 3], action: f64) -> ([f64; 3], f64, bool) {
        let first = first != 0.0;
        let short = |x: f64| f64::from(x as f32);
        let round = |x: f64| if first { x } else { short(x) };
        let (_, cos) = sin_cos(round(3.0 * position));
        let push =
            round(short(short(clip(action, -1.0, 1.0)) * short(0.0015)) - round(0.0025 * cos));
        let velocity = round(clip(round(velocity + push), -0.07, 0.07));
        let position = round(position + velocity);
        let position = clip(position, round(-1.2), round(0.6));
        let stopped = (position == round(-1.2)) & (velocity < 0.0);
        let velocity = if stopped { 0.0 } else { velocity };
        let over = (position >= round(0.45)) & (velocity >= 0.0);
        let reward = if over { 100.0 } else { 0.0 } - action * action * 0.1;
        ([short(position), short(velocity), 0.0], reward, over)
    }

    #[inline(always)]
    fn observe(state: &[f64; 3]) -> [f32; 2] {
        [state[0] as f32, state[1] as f32]
    }
}

/// A pendulum to be swung up and held by a weak motor. Its episodes end by their time limit alone.
#[derive(Clone)]
pub struct Pendulum;

impl Dynamics<2, 3> for Pendulum {
    fn observation_space() -> Space {
        Space::symmetric(&[1.0, 1.0, 8.0])
    }

    fn action_space() -> Space {
        Space::symmetric(&[2.0])
    }

    fn initial(rng: &mut Rng) -> [f64; 2] {
        [rng.between(-PI, PI), rng.between(-1.0, 1.0)]
    }

    #[inline(always)]
    fn advance([angle, turn]: [f64; 2], action: f64) -> ([f64; 2], f64, bool) {
        // Gymnasium's action is an `f32`, and so is what is made of it alone.
        let torque = clip(action, -2.0, 2.0) as f32;
        let turns = (angle + PI) / (2.0 * PI);
        let normal = (turns - turns.floor()) * (2.0 * PI) - PI;
        let effort = f64::from(0.001 * (torque * torque));
        let cost = normal * normal + 0.1 * (turn * turn) + effort;
        let (sin, _) = sin_cos(angle);
        let turn = turn + (15.0 * sin + f64::from(3.0 * torque)) * 0.05;
        let turn = clip(turn, -8.0, 8.0);
        ([angle + turn * 0.05, turn], -cost, false)
    }

    #[inline(always)]
    fn observe(state: &[f64; 2]) -> [f32; 3] {
        let (sin, cos) = sin_cos(state[0]);
        [cos as f32, sin as f32, state[1] as f32]
    }
}

/// Two links that hang, the lower end to be swung above a line (Sutton, 1996).
#[derive(Clone)]
pub struct Acrobot;

impl Acrobot {
    /// The rates of change of the four numbers of the state.
    #[inline(always)]
    fn rates([first, second, turn1, turn2]: [f64; 4], torque: f64) -> [f64; 4] {
        const GRAVITY: f64 = 9.8;
        // Masses, lengths and moments are 1, the centres of mass in the middle.
        let (sin1, _) = sin_cos(first);
        let (sin2, cos2) = sin_cos(second);
        let (sin12, _) = sin_cos(first + second);
        let d1 = 0.25 + (1.0 + 0.25 + cos2) + 1.0 + 1.0;
        let d2 = (0.25 + 0.5 * cos2) + 1.0;
        // cos(x - pi/2) is sin(x).
        let phi2 = 0.5 * GRAVITY * sin12;
        let phi1 = -0.5 * turn2 * turn2 * sin2 - turn2 * turn1 * sin2 + 1.5 * GRAVITY * sin1 + phi2;
        let spin2 = (torque + d2 / d1 * phi1 - 0.5 * turn1 * turn1 * sin2 - phi2)
            / (0.25 + 1.0 - d2 * d2 / d1);
        let spin1 = -(d2 * spin2 + phi1) / d1;
        [turn1, turn2, spin1, spin2]
    }

    #[inline(always)]
    fn wrap(angle: f64) -> f64 {
        // A step turns by less than a full turn, so one is enough.
        let angle = if angle > PI { angle - 2.0 * PI } else { angle };
        if angle < -PI { angle + 2.0 * PI } else { angle }
    }
}

impl Dynamics<4, 6> for Acrobot {
    fn observation_space() -> Space {
        Space::symmetric(&[1.0, 1.0, 1.0, 1.0, 4.0 * PI as f32, 9.0 * PI as f32])
    }

    fn action_space() -> Space {
        Space::Discrete(3)
    }

    fn initial(rng: &mut Rng) -> [f64; 4] {
        std::array::from_fn(|_| f64::from(rng.between(-0.1, 0.1) as f32))
    }

    #[inline(always)]
    fn advance(state: [f64; 4], action: f64) -> ([f64; 4], f64, bool) {
        const DT: f64 = 0.2;
        let torque = action - 1.0;
        let along = |rates: [f64; 4], dt: f64| -> [f64; 4] {
            std::array::from_fn(|i| state[i] + dt * rates[i])
        };
        // Runge and Kutta's method of fourth order.
        let k1 = Self::rates(state, torque);
        let k2 = Self::rates(along(k1, DT / 2.0), torque);
        let k3 = Self::rates(along(k2, DT / 2.0), torque);
        let k4 = Self::rates(along(k3, DT), torque);
        let next: [f64; 4] = std::array::from_fn(|i| {
            state[i] + DT / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i])
        });
        let next = [
            Self::wrap(next[0]),
            Self::wrap(next[1]),
            clip(next[2], -4.0 * PI, 4.0 * PI),
            clip(next[3], -9.0 * PI, 9.0 * PI),
        ];
        let (_, cos1) = sin_cos(next[0]);
        let (_, cos12) = sin_cos(next[1] + next[0]);
        let over = -cos1 - cos12 > 1.0;
        (next, if over { 0.0 } else { -1.0 }, over)
    }

    #[inline(always)]
    fn observe(state: &[f64; 4]) -> [f32; 6] {
        let (sin1, cos1) = sin_cos(state[0]);
        let (sin2, cos2) = sin_cos(state[1]);
        [cos1, sin1, cos2, sin2, state[2], state[3]].map(|x| x as f32)
    }
}
