//! A network as learners see it: layers of filters over a picture, if it has any, then an [`Mlp`].
//!
//! Invariant: the weights are one row of `f32`, layer by layer from the inputs on; without filters it is the Mlp's own, and
//! costs what that costs. Left out: which filters are best for a picture; there is one choice, for small ones.

use super::conv::Conv;
use super::error::{Error, Result};
use super::mlp::{Activation, Mlp, Tape};
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
    mlp: Mlp,
}

impl Network {
    /// Hidden layers alone.
    pub fn mlp(inputs: usize, hidden: &[usize], outputs: usize, activation: Activation) -> Network {
        Network {
            filters: Vec::new(),
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
            mlp: Mlp::new(inputs, hidden, outputs, activation),
        })
    }

    /// How many numbers go in.
    pub fn inputs(&self) -> usize {
        let first = self.filters.first();
        first.map_or_else(|| self.mlp.inputs(), Conv::inputs)
    }

    /// How many come out.
    pub fn outputs(&self) -> usize {
        self.mlp.outputs()
    }

    /// How many weights there are.
    pub fn weights(&self) -> usize {
        let filters: usize = self.filters.iter().map(Conv::weights).sum();
        filters + self.mlp.weights()
    }

    /// First weights, as [`Mlp::orthogonal`]; filters count as hidden.
    pub fn orthogonal(&self, rng: &mut Rng, hidden_gain: f32, output_gain: f32) -> Vec<f32> {
        let mut weights = Vec::with_capacity(self.weights());
        for layer in &self.filters {
            weights.extend(layer.orthogonal(rng, hidden_gain));
        }
        weights.extend(self.mlp.orthogonal(rng, hidden_gain, output_gain));
        weights
    }

    /// Computes all layers for the rows in `inputs` and leaves them in `tape`.
    pub fn forward(&self, weights: &[f32], inputs: &[f32], tape: &mut Tape) {
        if self.filters.is_empty() {
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
        self.mlp.forward(rest, seen, tape);
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
        let Some(last) = tape.filters.last().filter(|_| !self.filters.is_empty()) else {
            return self
                .mlp
                .backward(weights, inputs, tape, slope, by_weights, by_inputs);
        };
        let mut end = weights.len() - self.mlp.weights();
        let mut below = vec![0.0; last.out.len()];
        self.mlp.backward(
            &weights[end..],
            &last.out,
            tape,
            slope,
            &mut by_weights[end..],
            Some(&mut below),
        );
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
