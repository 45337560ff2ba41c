//! A stream of bytes, cut into frames.
//!
//! Invariant: holds at most one frame and one read of the socket; a length beyond the bound is an
//! error before anything is reserved for it. Left out: reading the socket, and what frames mean.

use super::FRAME_MAX;

/// A frame says that it is longer than any may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Oversize(pub u32);

/// Bytes received and not yet looked at.
pub(crate) struct Frames {
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    /// Bytes asked for at a time: more while reads come back full.
    read: usize,
}

/// The least and the most bytes that are asked for at a time: a server has thousands of these.
const READ_MIN: usize = 1 << 10;
const READ_MAX: usize = 64 << 10;

impl Default for Frames {
    fn default() -> Frames {
        Frames {
            buffer: Vec::new(),
            begin: 0,
            end: 0,
            read: READ_MIN,
        }
    }
}

impl Frames {
    /// Room for the next read. What is written to its front is then told to
    /// [`received`](Self::received).
    pub fn room(&mut self) -> &mut [u8] {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        } else if self.begin > 0 && self.buffer.len() - self.end < self.read {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        if self.buffer.len() - self.end < self.read {
            self.buffer.resize(self.end + self.read, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were written to the front of the room.
    pub fn received(&mut self, bytes: usize) {
        if bytes >= self.buffer.len() - self.end {
            self.read = (self.read * 2).min(READ_MAX);
        }
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    /// Bytes received and not taken.
    pub fn len(&self) -> usize {
        self.end - self.begin
    }

    /// The next whole frame, without its length.
    pub fn next(&mut self) -> Result<Option<&[u8]>, Oversize> {
        let held = &self.buffer[self.begin..self.end];
        let Some((length, rest)) = held.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length);
        if length as usize > FRAME_MAX {
            return Err(Oversize(length));
        }
        if rest.len() < length as usize {
            return Ok(None);
        }
        let begin = self.begin + 4;
        self.begin = begin + length as usize;
        Ok(Some(&self.buffer[begin..self.begin]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(frames: &mut Frames, bytes: &[u8]) {
        frames.room()[..bytes.len()].copy_from_slice(bytes);
        frames.received(bytes.len());
    }

    #[test]
    fn frames_come_out_whole_however_they_came_in() {
        let mut stream = Vec::new();
        for len in [0usize, 1, 5, 300, FRAME_MAX] {
            stream.extend_from_slice(&(len as u32).to_le_bytes());
            stream.extend(std::iter::repeat_n(len as u8, len));
        }
        for step in [1, 3, 7, 1000] {
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for piece in stream.chunks(step) {
                feed(&mut frames, piece);
                while let Some(frame) = frames.next().unwrap() {
                    seen.push(frame.len());
                }
            }
            assert_eq!(seen, [0, 1, 5, 300, FRAME_MAX], "in steps of {step}");
            assert!(frames.buffer.len() <= FRAME_MAX + 4 + 2 * READ_MAX);
        }
    }

    #[test]
    fn too_long_a_frame_is_refused_by_its_length() {
        let mut frames = Frames::default();
        feed(&mut frames, &u32::MAX.to_le_bytes());
        assert_eq!(frames.next().unwrap_err(), Oversize(u32::MAX));
        assert!(frames.buffer.len() <= READ_MIN);
    }
}
