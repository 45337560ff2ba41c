//! A network as learners see it: layers of filters over a picture, if it has any, then long short-term memory, if it has that,
//! then an [`Mlp`].
//!
//! Invariant: the weights are one row of `f32`, layer by layer from the inputs on; of hidden layers alone it is the Mlp's own, and
//! costs what that costs. Left out: which filters are best for a picture; there is one choice, for small ones.

use super::conv::Conv;
use super::error::{Error, Result};
use super::layer::Activation;
use super::lstm::{Lstm, LstmState};
use super::mlp::{Mlp, Tape};
use super::rng::Rng;
use super::space::Space;

/// Which kind of network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Net {
    /// Hidden layers alone.
    #[default]
    Mlp,
    /// Two layers of 16 filters before the hidden ones, of 4 x 4 and of 3 x 3 pixels, each by steps of two. For observations that
    /// are pictures of 8 x 8 pixels or more.
    Cnn,
}

/// The shape of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    filters: Vec<Conv>,
    lstm: Option<Lstm>,
    mlp: Mlp,
}

impl Network {
    /// Hidden layers alone.
    pub fn mlp(inputs: usize, hidden: &[usize], outputs: usize, activation: Activation) -> Network {
        Network {
            filters: Vec::new(),
            lstm: None,
            mlp: Mlp::new(inputs, hidden, outputs, activation),
        }
    }

    /// The kind of network asked for, from observations of environment `env` to `outputs` numbers.
    ///
    /// # Errors
    /// [`Error::WrongSpace`] for filters over what is no picture, or too small a one.
    ///
    /// ```
    /// use mobula::rl::{Activation, Net, Network, Rng, Space, Tape};
    /// let seen = Space::uniform(0.0, 1.0, &[1, 20, 20]);
    /// let net = Network::new(Net::Cnn, "CatchPixels-v0", &seen, &[64], 3, Activation::Relu)?;
    /// let weights = net.orthogonal(&mut Rng::new(0), 2f32.sqrt(), 0.01);
    /// let mut tape = Tape::default();
    /// net.forward(&weights, &[0.5; 400], &mut tape);
    /// assert_eq!(tape.output().len(), 3);
    /// # Ok::<(), mobula::rl::Error>(())
    /// ```
    pub fn new(
        net: Net,
        env: &str,
        observations: &Space,
        hidden: &[usize],
        outputs: usize,
        activation: Activation,
    ) -> Result<Network> {
        if net == Net::Mlp {
            return Ok(Network::mlp(
                observations.len(),
                hidden,
                outputs,
                activation,
            ));
        }
        let shape = match observations {
            Space::Box { shape, .. } => shape.as_slice(),
            Space::Discrete(_) => &[],
        };
        // Of stacked frames, each is a plane.
        let (planes, picture) = shape.split_at(shape.len().saturating_sub(2));
        let &[rows, columns] = picture else {
            return Err(no_picture(env, observations));
        };
        if rows < 8 || columns < 8 {
            return Err(no_picture(env, observations));
        }
        let depth = planes.iter().product();
        let first = Conv {
            picture: [depth, rows, columns],
            planes: depth > 1,
            filters: 16,
            size: 4,
            stride: 2,
        };
        let second = Conv {
            picture: first.output(),
            planes: false,
            filters: 16,
            size: 3,
            stride: 2,
        };
        let inputs = second.output().iter().product();
        Ok(Network {
            filters: vec![first, second],
            lstm: None,
            mlp: Mlp::new(inputs, hidden, outputs, activation),
        })
    }

    /// The same network with a layer of `units` of long short-term memory in front of its hidden layers.
    ///
    /// ```
    /// use mobula::rl::{Activation, Network, Rng, Tape};
    /// let net = Network::mlp(1, &[], 1, Activation::Tanh).with_lstm(4);
    /// let weights = net.orthogonal(&mut Rng::new(0), 1.0, 1.0);
    /// let (mut state, mut tape) = (net.state(1), Tape::default());
    /// // What it gives follows from what it saw before, too.
    /// let mut step = |input: f32| {
    ///     net.advance(&weights, &[input], &[], &mut state, &mut tape);
    ///     tape.output()[0]
    /// };
    /// let first = step(1.0);
    /// assert_ne!(step(1.0), first);
    /// ```
    pub fn with_lstm(mut self, units: usize) -> Network {
        let inputs = self.mlp.inputs();
        self.lstm = Some(Lstm { inputs, units });
        self.mlp = self.mlp.with_inputs(units);
        self
    }

    /// How many numbers go in.
    pub fn inputs(&self) -> usize {
        match (self.filters.first(), &self.lstm) {
            (Some(first), _) => first.inputs(),
            (None, Some(lstm)) => lstm.inputs,
            (None, None) => self.mlp.inputs(),
        }
    }

    /// Units of long short-term memory; 0 without.
    pub fn units(&self) -> usize {
        self.lstm.as_ref().map_or(0, |lstm| lstm.units)
    }

    /// What is remembered at the beginning of `rows` episodes.
    pub fn state(&self, rows: usize) -> LstmState {
        LstmState::new(self.units(), rows)
    }

    /// How many come out.
    pub fn outputs(&self) -> usize {
        self.mlp.outputs()
    }

    /// How many weights there are.
    pub fn weights(&self) -> usize {
        let filters: usize = self.filters.iter().map(Conv::weights).sum();
        filters + self.lstm.as_ref().map_or(0, Lstm::weights) + self.mlp.weights()
    }

    /// First weights, as [`Mlp::orthogonal`]; filters count as hidden, and matrices of long short-term memory are not scaled.
    pub fn orthogonal(&self, rng: &mut Rng, hidden_gain: f32, output_gain: f32) -> Vec<f32> {
        let mut weights = Vec::with_capacity(self.weights());
        for layer in &self.filters {
            weights.extend(layer.orthogonal(rng, hidden_gain));
        }
        weights.extend(self.lstm.iter().flat_map(|lstm| lstm.orthogonal(rng)));
        weights.extend(self.mlp.orthogonal(rng, hidden_gain, output_gain));
        weights
    }

    /// Computes all layers for the rows in `inputs` and leaves them in `tape`. Where the network remembers, each row is the first
    /// of an episode.
    pub fn forward(&self, weights: &[f32], inputs: &[f32], tape: &mut Tape) {
        let mut state = match &self.lstm {
            None => LstmState::default(),
            Some(_) => self.state(inputs.len() / self.inputs()),
        };
        self.advance(weights, inputs, &[], &mut state, tape);
    }

    /// As [`forward`](Network::forward), but goes on from `state`, and leaves there what is to be remembered. The rows are steps of as
    /// many episodes as the state has, one step of all after the other; `over` says which row was the last of its episode, for all
    /// steps but the last one at least.
    pub fn advance(
        &self,
        weights: &[f32],
        inputs: &[f32],
        over: &[bool],
        state: &mut LstmState,
        tape: &mut Tape,
    ) {
        if self.filters.is_empty() && self.lstm.is_none() {
            return self.mlp.forward(weights, inputs, tape);
        }
        assert_eq!(weights.len(), self.weights(), "weights of another network");
        let mut passes = std::mem::take(&mut tape.filters);
        passes.resize_with(self.filters.len(), Default::default);
        let mut rest = weights;
        for (i, layer) in self.filters.iter().enumerate() {
            let (own, behind) = rest.split_at(layer.weights());
            rest = behind;
            let (below, here) = passes.split_at_mut(i);
            let inputs = below.last().map_or(inputs, |pass| &pass.out);
            layer.forward(own, inputs, &mut here[0]);
        }
        let seen = passes.last().map_or(inputs, |pass| &pass.out);
        match &self.lstm {
            None => self.mlp.forward(rest, seen, tape),
            Some(lstm) => {
                let (own, rest) = rest.split_at(lstm.weights());
                let mut pass = std::mem::take(&mut tape.lstm);
                lstm.forward(own, seen, over, state, &mut pass);
                self.mlp.forward(rest, &pass.out, tape);
                tape.lstm = pass;
            }
        }
        tape.filters = passes;
    }

    /// The gradients of a loss whose gradient by the outputs is `slope`, for the pass that `tape` has: by the weights,
    /// written to `by_weights`, and by the inputs, if `by_inputs` is there.
    pub fn backward(
        &self,
        weights: &[f32],
        inputs: &[f32],
        tape: &Tape,
        slope: &[f32],
        by_weights: &mut [f32],
        mut by_inputs: Option<&mut [f32]>,
    ) {
        let mut end = weights.len() - self.mlp.weights();
        let filtered = tape.filters.last().map(|pass| &pass.out);
        let filtered = filtered.filter(|_| !self.filters.is_empty());
        let Some(seen) = self.lstm.as_ref().map(|_| &tape.lstm.out).or(filtered) else {
            return self
                .mlp
                .backward(weights, inputs, tape, slope, by_weights, by_inputs);
        };
        let mut below = vec![0.0; seen.len()];
        self.mlp.backward(
            &weights[end..],
            seen,
            tape,
            slope,
            &mut by_weights[end..],
            Some(&mut below),
        );
        if let Some(lstm) = &self.lstm {
            let part = end - lstm.weights()..end;
            end = part.start;
            let slope = std::mem::take(&mut below);
            below.resize(filtered.map_or(0, Vec::len), 0.0);
            let by_seen = match filtered {
                Some(_) => Some(below.as_mut_slice()),
                None => by_inputs.take(),
            };
            let (own, by_own) = (&weights[part.clone()], &mut by_weights[part]);
            lstm.backward(own, &tape.lstm, &slope, by_own, by_seen);
        }
        for (i, (layer, pass)) in self.filters.iter().zip(&tape.filters).enumerate().rev() {
            let part = end - layer.weights()..end;
            end = part.start;
            let (own, by_own) = (&weights[part.clone()], &mut by_weights[part]);
            let slope = std::mem::take(&mut below);
            if i > 0 {
                below.resize(tape.filters[i - 1].out.len(), 0.0);
                layer.backward(own, pass, slope, by_own, Some(&mut below));
            } else {
                layer.backward(own, pass, slope, by_own, by_inputs.take());
            }
        }
    }
}

fn no_picture(env: &str, observations: &Space) -> Error {
    Error::WrongSpace {
        what: "\"net\": \"cnn\"",
        needed: "observations that are pictures of at least 8 x 8 pixels",
        env: env.to_owned(),
        found: observations.describe(),
    }
}
