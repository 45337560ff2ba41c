//! Bodies that learn to walk, on the physics of MuJoCo: Hopper, Walker2d, HalfCheetah, Ant and Humanoid, as Gymnasium's of version 5.
//!
//! Invariant: from the same state, the same actions give the same observations and rewards as in Gymnasium; the models beside this file
//! have the measures of Gymnasium's, and nothing of their looks. What an environment knows is its positions and velocities, the
//! acceleration that the solver begins from, and where the body was: a run goes on from them bit by bit. Left out: options of
//! Gymnasium's constructors, and pictures.

use super::bodies::BODIES;
use super::{Env, Step, Words};
use crate::rl::error::{Error, Result};
use crate::rl::rng::Rng;
use crate::rl::space::{Action, Space};
use mujoco_rs::wrappers::{MjData, MjModel};
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};

/// Steps after which an episode is cut off.
const LIMIT: u64 = 1000;

/// Where a body is, to tell how fast it moves forward.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// By the first joint.
    Joint,
    /// By the origin of the first body, as it was before the last small step.
    Origin,
    /// By the centre of all mass, as it was before the last small step.
    Centre,
}

/// What is observed behind positions and velocities.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Beyond {
    Nothing,
    /// Forces from outside on each body, within -1 and 1.
    Forces,
    /// Inertia and velocity of each body, forces of the motors, forces from outside.
    All,
}

/// What tells one body from another.
struct Robot {
    model: &'static str,
    /// Small steps of the physics in one step.
    skip: usize,
    place: Place,
    beyond: Beyond,
    /// Positions that are not observed: where it is.
    hidden: usize,
    /// Whether velocities are observed within -10 and 10.
    clip: bool,
    /// What a unit of speed is worth.
    forward: f64,
    /// What each step is worth as long as it stands.
    standing: f64,
    /// What the square of an action costs.
    control: f64,
    /// What the square of a force from outside costs, and the most that it costs.
    contact: Option<(f64, f64)>,
    /// How far the first positions and velocities are from the model's.
    noise: f64,
    /// Whether the first velocities are from a normal distribution.
    normal: bool,
    /// Whether it stands; a body without this does not fall.
    stands: Option<fn(&[f64], &[f64]) -> bool>,
}

/// Whether a number lies between two bounds, which are outside.
fn between(low: f64, x: f64, high: f64) -> bool {
    low < x && x < high
}

/// What legs in a plane have in common.
const PLANE: Robot = Robot {
    model: "",
    skip: 4,
    place: Place::Joint,
    beyond: Beyond::Nothing,
    hidden: 1,
    clip: true,
    forward: 1.0,
    standing: 1.0,
    control: 1e-3,
    contact: None,
    noise: 5e-3,
    normal: false,
    stands: None,
};

/// In the order of [`BODIES`].
const ROBOTS: [Robot; BODIES.len()] = [
    // Hopper-v5
    Robot {
        model: include_str!("mujoco/hopper.xml"),
        stands: Some(|q, v| {
            let mut others = q[2..].iter().chain(v);
            others.all(|x| between(-100.0, *x, 100.0)) && q[1] > 0.7 && between(-0.2, q[2], 0.2)
        }),
        ..PLANE
    },
    // Walker2d-v5
    Robot {
        model: include_str!("mujoco/walker2d.xml"),
        stands: Some(|q, _| between(0.8, q[1], 2.0) && between(-1.0, q[2], 1.0)),
        ..PLANE
    },
    // HalfCheetah-v5
    Robot {
        model: include_str!("mujoco/half_cheetah.xml"),
        skip: 5,
        place: Place::Joint,
        beyond: Beyond::Nothing,
        hidden: 1,
        clip: false,
        forward: 1.0,
        standing: 0.0,
        control: 0.1,
        contact: None,
        noise: 0.1,
        normal: true,
        stands: None,
    },
    // Ant-v5
    Robot {
        model: include_str!("mujoco/ant.xml"),
        skip: 5,
        place: Place::Origin,
        beyond: Beyond::Forces,
        hidden: 2,
        clip: false,
        forward: 1.0,
        standing: 1.0,
        control: 0.5,
        contact: Some((5e-4, f64::INFINITY)),
        noise: 0.1,
        normal: true,
        stands: Some(|q, v| {
            q.iter().chain(v).all(|x| x.is_finite()) && (0.2..=1.0).contains(&q[2])
        }),
    },
    // Humanoid-v5
    Robot {
        model: include_str!("mujoco/humanoid.xml"),
        skip: 5,
        place: Place::Centre,
        beyond: Beyond::All,
        hidden: 2,
        clip: false,
        forward: 1.25,
        standing: 5.0,
        control: 0.1,
        contact: Some((5e-7, 10.0)),
        noise: 1e-2,
        normal: false,
        stands: Some(|q, _| between(1.0, q[2], 2.0)),
    },
];

/// The model of robot `i`, which all its environments share.
fn model(i: usize) -> Result<Arc<MjModel>> {
    static MODELS: [OnceLock<Arc<MjModel>>; ROBOTS.len()] =
        [const { OnceLock::new() }; ROBOTS.len()];
    if let Some(model) = MODELS[i].get() {
        return Ok(model.clone());
    }
    let made = MjModel::from_xml_string(ROBOTS[i].model).map_err(|e| Error::Environment {
        env: BODIES[i].to_owned(),
        why: format!("MuJoCo refuses its model: {e}"),
    })?;
    Ok(MODELS[i].get_or_init(|| Arc::new(made)).clone())
}

/// One body.
pub(super) struct MuJoCo {
    robot: &'static Robot,
    data: MjData<Arc<MjModel>>,
    /// The bounds of each motor.
    bounds: Vec<RangeInclusive<f64>>,
    /// Where it was after the last step.
    place: f64,
    /// Steps of this episode.
    steps: u64,
    rng: Rng,
}

impl MuJoCo {
    /// Body `i` of [`BODIES`], in its model's first position.
    pub fn new(i: usize) -> Result<MuJoCo> {
        let model = model(i)?;
        let range = model.actuator_ctrlrange().iter();
        Ok(MuJoCo {
            robot: &ROBOTS[i],
            bounds: range.map(|[low, high]| *low..=*high).collect(),
            data: MjData::new(model),
            place: 0.0,
            steps: 0,
            rng: Rng::new(0),
        })
    }

    /// Where it is.
    fn place(&self) -> f64 {
        match self.robot.place {
            Place::Joint => self.data.qpos()[0],
            Place::Origin => self.data.xpos()[1][0],
            Place::Centre => {
                let masses = self.data.model().body_mass();
                let moment = masses
                    .iter()
                    .zip(self.data.xipos())
                    .map(|(m, at)| m * at[0]);
                moment.sum::<f64>() / masses.iter().sum::<f64>()
            }
        }
    }

    fn stands(&self) -> bool {
        let stands = self.robot.stands;
        stands.is_none_or(|stands| stands(self.data.qpos(), self.data.qvel()))
    }

    fn observe(&self, observation: &mut [f32]) {
        let (data, robot) = (&self.data, self.robot);
        let mut places = observation.iter_mut();
        let mut put = |x: f64| {
            if let Some(place) = places.next() {
                *place = x as f32;
            }
        };
        data.qpos()[robot.hidden..].iter().for_each(|x| put(*x));
        match robot.clip {
            true => data.qvel().iter().for_each(|x| put(x.clamp(-10.0, 10.0))),
            false => data.qvel().iter().for_each(|x| put(*x)),
        }
        // The first body is the world.
        match robot.beyond {
            Beyond::Nothing => {}
            Beyond::Forces => {
                let forces = data.cfrc_ext()[1..].as_flattened();
                forces.iter().for_each(|x| put(x.clamp(-1.0, 1.0)));
            }
            Beyond::All => {
                let parts = [
                    data.cinert()[1..].as_flattened(),
                    data.cvel()[1..].as_flattened(),
                    &data.qfrc_actuator()[6..],
                    data.cfrc_ext()[1..].as_flattened(),
                ];
                parts.iter().flat_map(|p| p.iter()).for_each(|x| put(*x));
            }
        }
    }

    /// What forces from outside cost.
    fn contact_cost(&self) -> f64 {
        let Some((weight, most)) = self.robot.contact else {
            return 0.0;
        };
        let forces = self.data.cfrc_ext().as_flattened().iter();
        let squares: f64 = match self.robot.beyond {
            Beyond::Forces => forces.map(|x| x.clamp(-1.0, 1.0).powi(2)).sum(),
            _ => forces.map(|x| x * x).sum(),
        };
        (weight * squares).min(most)
    }
}

impl Env for MuJoCo {
    fn observation_space(&self) -> Space {
        let model = self.data.model();
        let (q, v) = (self.data.qpos().len(), self.data.qvel().len());
        let bodies = model.body_mass().len() - 1;
        let beyond = match self.robot.beyond {
            Beyond::Nothing => 0,
            Beyond::Forces => bodies * 6,
            Beyond::All => bodies * (10 + 6 + 6) + v - 6,
        };
        let inf = f32::INFINITY;
        Space::uniform(-inf, inf, &[q - self.robot.hidden + v + beyond])
    }

    fn action_space(&self) -> Space {
        let high: Vec<f32> = self.bounds.iter().map(|b| *b.end() as f32).collect();
        Space::symmetric(&high)
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) {
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        let (noise, rng) = (self.robot.noise, &mut self.rng);
        self.data.reset();
        for x in self.data.qpos_mut() {
            *x += rng.between(-noise, noise);
        }
        for x in self.data.qvel_mut() {
            *x += match self.robot.normal {
                true => noise * rng.normal(),
                false => rng.between(-noise, noise),
            };
        }
        self.data.forward();
        self.place = self.place();
        self.steps = 0;
        self.observe(observation);
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Step {
        let mut cost = 0.0;
        let controls = self.data.ctrl_mut().iter_mut().zip(&self.bounds);
        for ((control, bounds), x) in controls.zip(action.numbers()) {
            *control = f64::from(*x).clamp(*bounds.start(), *bounds.end());
            cost += *control * *control;
        }
        for _ in 0..self.robot.skip {
            self.data.step();
        }
        // Forces from outside are not computed by a step.
        if self.robot.beyond != Beyond::Nothing {
            self.data.rne_post_constraint();
        }
        let before = self.place;
        self.place = self.place();
        let seconds = self.data.model().opt().timestep * self.robot.skip as f64;
        let speed = (self.place - before) / seconds;
        self.steps += 1;
        self.observe(observation);
        let stands = self.stands();
        let worth = self.robot.forward * speed + f64::from(u8::from(stands)) * self.robot.standing;
        Step {
            reward: (worth - self.robot.control * cost - self.contact_cost()) as f32,
            terminated: !stands,
            truncated: self.steps >= LIMIT,
        }
    }

    fn save(&self, words: &mut Vec<u64>) {
        let rows = [
            self.data.qpos(),
            self.data.qvel(),
            self.data.qacc_warmstart(),
        ];
        words.extend(rows.iter().flat_map(|row| row.iter()).map(|x| x.to_bits()));
        words.extend([self.place.to_bits(), self.steps]);
        words.extend(self.rng.words());
    }

    fn load(&mut self, words: &mut Words<'_>) {
        self.data.reset();
        self.data.qpos_mut().fill_with(|| words.number());
        self.data.qvel_mut().fill_with(|| words.number());
        self.data.qacc_warmstart_mut().fill_with(|| words.number());
        self.place = words.number();
        self.steps = words.word();
        self.rng = words.rng();
    }
}
