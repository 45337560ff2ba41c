//! A run written to one file and read back, bit by bit.
//!
//! Invariant: the file appears whole or not at all; numbers come back as the same bits. It is in the safetensors format, which other
//! programs read: weights and moments as rows of `f32`, everything else as rows of 64-bit words, the run's settings
//! as JSON in the row `run`. Left out: what the rows mean, which each algorithm says.

use super::adam::{Adam, Moments};
use super::error::{Error, Result};
use super::rng::Rng;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// What a run can go on from.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The algorithm.
    pub algorithm: String,
    /// The environment.
    pub env: String,
    /// All settings, as JSON.
    pub config: String,
    /// The seed.
    pub seed: u64,
    numbers: BTreeMap<String, Vec<f32>>,
    words: BTreeMap<String, Vec<u64>>,
}

/// What the row `run` has.
#[derive(Serialize, Deserialize)]
struct Run {
    algorithm: String,
    env: String,
    config: String,
    seed: u64,
}

impl Checkpoint {
    pub(super) fn new(algorithm: &str, env: &str, config: String, seed: u64) -> Checkpoint {
        Checkpoint {
            algorithm: algorithm.to_owned(),
            env: env.to_owned(),
            config,
            seed,
            numbers: BTreeMap::new(),
            words: BTreeMap::new(),
        }
    }

    pub(super) fn put_numbers(&mut self, name: &str, row: Vec<f32>) {
        self.numbers.insert(name.to_owned(), row);
    }

    pub(super) fn put_words(&mut self, name: &str, row: Vec<u64>) {
        self.words.insert(name.to_owned(), row);
    }

    pub(super) fn put_adam(&mut self, adam: &Adam) {
        let (steps, rows) = adam.state();
        self.put_words("adam.steps", vec![steps]);
        for (i, row) in rows.into_iter().enumerate() {
            self.put_numbers(&format!("adam.{i}.first"), row.first);
            self.put_numbers(&format!("adam.{i}.second"), row.second);
        }
    }

    pub(super) fn missing(&self, name: &str) -> Error {
        Error::Usage(format!(
            "the checkpoint of {} has no usable row {name:?}: it is damaged, or of another version",
            self.algorithm
        ))
    }

    /// A row of numbers.
    pub fn numbers(&self, name: &str) -> Result<&[f32]> {
        let row = self.numbers.get(name).map(Vec::as_slice);
        row.ok_or_else(|| self.missing(name))
    }

    /// A row of `n` numbers.
    pub(super) fn numbers_of(&self, name: &str, n: usize) -> Result<&[f32]> {
        let row = self.numbers(name)?;
        match row.len() == n {
            true => Ok(row),
            false => Err(self.missing(name)),
        }
    }

    /// A row of words.
    pub fn words(&self, name: &str) -> Result<&[u64]> {
        let row = self.words.get(name).map(Vec::as_slice);
        row.ok_or_else(|| self.missing(name))
    }

    /// A row of `n` words.
    pub(super) fn counters(&self, name: &str, n: usize) -> Result<&[u64]> {
        let row = self.words(name)?;
        if row.len() == n {
            Ok(row)
        } else {
            Err(self.missing(name))
        }
    }

    pub(super) fn rng(&self, name: &str) -> Result<Rng> {
        let words: [u64; 4] = self
            .words(name)?
            .try_into()
            .map_err(|_| self.missing(name))?;
        Ok(Rng::from_words(words))
    }

    pub(super) fn load_adam(&self, adam: &mut Adam) -> Result<()> {
        let steps = self.counters("adam.steps", 1)?[0];
        let (_, mut rows) = adam.state();
        for (i, row) in rows.iter_mut().enumerate() {
            let part = |name: &str| -> Result<Vec<f32>> {
                let name = format!("adam.{i}.{name}");
                let part = self.numbers(&name)?;
                match part.len() == row.first.len() {
                    true => Ok(part.to_vec()),
                    false => Err(self.missing(&name)),
                }
            };
            *row = Moments {
                first: part("first")?,
                second: part("second")?,
            };
        }
        adam.set_state(steps, rows);
        Ok(())
    }

    pub(super) fn put_collectors(&mut self, states: Vec<Vec<u64>>) {
        for (i, words) in states.into_iter().enumerate() {
            self.put_words(&format!("collector.{i}"), words);
        }
    }

    /// The state of every collector.
    pub(super) fn collectors(&self) -> Result<Vec<Vec<u64>>> {
        let count = self
            .words
            .keys()
            .filter(|name| name.starts_with("collector."))
            .count();
        (0..count)
            .map(|i| Ok(self.words(&format!("collector.{i}"))?.to_vec()))
            .collect()
    }

    /// Writes the file: first beside its place, then into it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let file = |why: String| Error::File {
            path: path.to_owned(),
            why,
        };
        let run = Run {
            algorithm: self.algorithm.clone(),
            env: self.env.clone(),
            config: self.config.clone(),
            seed: self.seed,
        };
        let run = serde_json::to_vec(&run).map_err(|error| file(error.to_string()))?;
        let cpu = &Device::Cpu;
        let mut tensors = HashMap::new();
        tensors.insert("run".to_owned(), Tensor::from_slice(&run, run.len(), cpu)?);
        for (name, row) in &self.numbers {
            tensors.insert(name.clone(), Tensor::from_slice(row, row.len(), cpu)?);
        }
        for (name, row) in &self.words {
            let row: Vec<i64> = row.iter().map(|word| word.cast_signed()).collect();
            let n = row.len();
            tensors.insert(name.clone(), Tensor::from_vec(row, n, cpu)?);
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".part");
        candle_core::safetensors::save(&tensors, &beside)
            .map_err(|error| file(error.to_string()))?;
        std::fs::File::open(&beside)
            .and_then(|written| written.sync_all())
            .and_then(|()| std::fs::rename(&beside, path))
            .map_err(|error| file(error.to_string()))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::File`] for one that is not there or not whole.
    pub fn read(path: &Path) -> Result<Checkpoint> {
        let file = |why: String| Error::File {
            path: path.to_owned(),
            why,
        };
        let bytes = std::fs::read(path).map_err(|error| file(error.to_string()))?;
        let no = |error: candle_core::Error| file(format!("is no checkpoint: {error}"));
        let mut tensors =
            candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(no)?;
        let run = tensors
            .remove("run")
            .ok_or_else(|| file("is no checkpoint: it has no row \"run\"".to_owned()))?;
        let run: Vec<u8> = run.to_vec1().map_err(no)?;
        let run: Run = serde_json::from_slice(&run).map_err(|error| file(error.to_string()))?;
        let mut checkpoint = Checkpoint::new(&run.algorithm, &run.env, run.config, run.seed);
        for (name, tensor) in tensors {
            if tensor.dtype() == DType::F32 {
                checkpoint.put_numbers(&name, tensor.to_vec1().map_err(no)?);
            } else {
                let words: Vec<i64> = tensor.to_vec1().map_err(no)?;
                let words = words.into_iter().map(i64::cast_unsigned).collect();
                checkpoint.put_words(&name, words);
            }
        }
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was_and_damage_is_seen() {
        let dir = std::env::temp_dir().join(format!("mobula-checkpoint-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("one");
        let mut checkpoint = Checkpoint::new("PPO", "CartPole-v1", "{}".to_owned(), u64::MAX);
        checkpoint.put_numbers("weights", vec![1.5, f32::MIN_POSITIVE / 2.0, -0.0]);
        checkpoint.put_words("rng", vec![u64::MAX, 0, 1, 2]);
        checkpoint.write(&path).unwrap();
        let read = Checkpoint::read(&path).unwrap();
        assert_eq!(read, checkpoint);
        assert!(read.rng("rng").is_ok() && read.rng("run").is_err());
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
        assert!(matches!(Checkpoint::read(&path), Err(Error::File { .. })));
        assert!(matches!(
            Checkpoint::read(&dir.join("none")),
            Err(Error::File { .. })
        ));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
