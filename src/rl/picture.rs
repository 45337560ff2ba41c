//! What an observation shows, drawn in letters: the classic problems, and pixels.
//!
//! Invariant: the drawing follows from the observation alone. A letter is taken to be twice as high as wide. Left out: colours,
//! and observations that do not say where things are.

use super::env::make;
use super::error::{Error, Result};
use super::space::Space;
use std::f64::consts::FRAC_PI_2;

/// Columns of the classic problems' pictures.
const WIDTH: usize = 61;
/// The one in the middle.
const MIDDLE: f64 = 30.0;

/// Draws an observation of this environment, wrapped or not: lines of text. Of stacked frames it is the newest.
///
/// # Errors
/// [`Error::UnknownEnv`]; [`Error::Usage`] for an environment that cannot be drawn, with those that can.
///
/// ```
/// let drawn = mobula::rl::picture("Pendulum-v1", &[1.0, 0.0, 0.0])?; // upright
/// assert!(drawn.lines().next().expect("lines").ends_with('O'));
/// # Ok::<(), mobula::rl::Error>(())
/// ```
pub fn picture(env: &str, observation: &[f32]) -> Result<String> {
    let bare = env.split('+').next().unwrap_or_default();
    let draw: fn(&[f64]) -> Canvas = match bare {
        "CartPole-v0" | "CartPole-v1" => cart_pole,
        "MountainCar-v0" => |seen| mountain_car(seen, 0.5),
        "MountainCarContinuous-v0" => |seen| mountain_car(seen, 0.45),
        "Acrobot-v1" => acrobot,
        "Pendulum-v1" => pendulum,
        _ if bare.starts_with("gym:") => return Err(unknown(env)),
        _ => {
            return match make(bare)?.observation_space() {
                Space::Box { shape, .. } if matches!(*shape, [1, _, _]) => {
                    let size = shape.iter().product();
                    Ok(pixels(newest(env, observation, size)?, shape[2]))
                }
                _ => Err(unknown(env)),
            };
        }
    };
    let size = make(bare)?.observation_space().len();
    let seen = newest(env, observation, size)?.iter();
    Ok(draw(&seen.map(|x| f64::from(*x)).collect::<Vec<_>>()).text())
}

fn unknown(env: &str) -> Error {
    Error::Usage(format!(
        "{env} cannot be drawn; CartPole-v0, CartPole-v1, MountainCar-v0, MountainCarContinuous-v0, Acrobot-v1, Pendulum-v1 \
         and environments whose observations are pixels can"
    ))
}

/// The last `size` numbers.
fn newest<'a>(env: &str, observation: &'a [f32], size: usize) -> Result<&'a [f32]> {
    let from = observation.len().checked_sub(size).ok_or_else(|| {
        Error::Usage(format!(
            "an observation of {env} has {size} numbers, not {}",
            observation.len()
        ))
    })?;
    Ok(&observation[from..])
}

/// Letters in rows.
struct Canvas {
    rows: Vec<[char; WIDTH]>,
}

impl Canvas {
    fn new(height: usize) -> Canvas {
        Canvas {
            rows: vec![[' '; WIDTH]; height],
        }
    }

    /// Puts a letter where the point is nearest to; what lies outside is not drawn.
    fn put(&mut self, column: f64, row: f64, letter: char) {
        let (column, row) = (column.round(), row.round());
        if column < 0.0 || row < 0.0 {
            return;
        }
        let row = self.rows.get_mut(row as usize);
        if let Some(to) = row.and_then(|row| row.get_mut(column as usize)) {
            *to = letter;
        }
    }

    /// A straight rod from a point, in columns and rows, that goes `length` rows along `angle`, clockwise from upright. Gives its end.
    fn rod(&mut self, (column, row): (f64, f64), angle: f64, length: f64) -> (f64, f64) {
        let (right, up) = (angle.sin(), angle.cos());
        let letter = match (right.abs(), up.abs()) {
            (x, y) if y > 2.0 * x => '|',
            (x, y) if x > 2.0 * y => '-',
            _ if right * up > 0.0 => '/',
            _ => '\\',
        };
        // One letter to a row, or to a column where there are more of these.
        let points = (2.0 * right.abs()).max(up.abs()) * length;
        let points = points.round().max(1.0) as u32;
        let at = |part: f64| {
            let along = part * length;
            (column + 2.0 * right * along, row - up * along)
        };
        for i in 0..=points {
            let (column, row) = at(f64::from(i) / f64::from(points));
            self.put(column, row, letter);
        }
        at(1.0)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let line: String = row.iter().collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The track's columns are 12 to a unit; the pole is 6 rows.
fn cart_pole(seen: &[f64]) -> Canvas {
    let (cart, angle) = (MIDDLE + 12.0 * seen[0], seen[2]);
    let mut canvas = Canvas::new(9);
    canvas.rows[8] = ['-'; WIDTH];
    canvas.rod((cart, 6.0), angle, 6.0);
    for (i, letter) in "[===]".chars().enumerate() {
        canvas.put(cart - 2.0 + i as f64, 7.0, letter);
    }
    canvas
}

fn mountain_car(seen: &[f64], goal: f64) -> Canvas {
    let mut canvas = Canvas::new(12);
    let column = |position: f64| (position + 1.2) / 1.8 * (WIDTH - 1) as f64;
    let ground = |position: f64| 11.0 - 10.0 * (0.45 * (3.0 * position).sin() + 0.55);
    for i in 0..WIDTH {
        let position = -1.2 + 1.8 * i as f64 / (WIDTH - 1) as f64;
        canvas.put(i as f64, ground(position), '.');
    }
    canvas.put(column(goal), ground(goal) - 1.0, 'F');
    canvas.put(column(seen[0]), ground(seen[0]) - 1.0, 'O');
    canvas
}

/// Angles go against the clock from upright.
fn pendulum(seen: &[f64]) -> Canvas {
    let mut canvas = Canvas::new(11);
    let (column, row) = canvas.rod((MIDDLE, 5.0), -seen[1].atan2(seen[0]), 5.0);
    canvas.put(MIDDLE, 5.0, '+');
    canvas.put(column, row, 'O');
    canvas
}

/// Angles go against the clock from hanging; a link is 4 rows, and the goal's line as far above the middle.
fn acrobot(seen: &[f64]) -> Canvas {
    let mut canvas = Canvas::new(17);
    canvas.rows[4] = ['.'; WIDTH];
    let first = seen[1].atan2(seen[0]);
    let second = first + seen[3].atan2(seen[2]);
    // From hanging to upright is half a turn.
    let clockwise = |angle: f64| 2.0 * FRAC_PI_2 - angle;
    let joint = canvas.rod((MIDDLE, 8.0), clockwise(first), 4.0);
    let end = canvas.rod(joint, clockwise(second), 4.0);
    canvas.put(MIDDLE, 8.0, '+');
    canvas.put(joint.0, joint.1, 'o');
    canvas.put(end.0, end.1, 'O');
    canvas
}

/// Two letters to a pixel, the denser the brighter, between bars.
fn pixels(seen: &[f32], columns: usize) -> String {
    const SHADES: &[u8] = b" .:-=+*%#";
    let mut text = String::new();
    for row in seen.chunks(columns) {
        text.push('|');
        for pixel in row {
            let shade = pixel.clamp(0.0, 1.0) * (SHADES.len() - 1) as f32;
            let letter = SHADES[shade.round() as usize] as char;
            text.extend([letter, letter]);
        }
        text.push_str("|\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::FRAC_PI_6;

    /// Line by line, without what stands left of all.
    fn drawn(env: &str, seen: &[f32]) -> Vec<String> {
        let text = picture(env, seen).expect("it can be drawn");
        let lines: Vec<&str> = text.lines().collect();
        let shown = lines.iter().filter(|line| !line.is_empty());
        let left = shown.map(|line| line.len() - line.trim_start().len()).min();
        let cut = |line: &&str| line.get(left.unwrap_or(0)..).unwrap_or("").to_owned();
        lines.iter().map(cut).collect()
    }

    #[test]
    fn a_pole_stands_on_its_cart_and_leans() {
        let text = picture("CartPole-v1", &[0.0, 0.0, 0.0, 0.0]).expect("drawn");
        let lines: Vec<&str> = text.lines().collect();
        let pole = format!("{}|", " ".repeat(30));
        assert_eq!(lines[..7], [pole.as_str(); 7]);
        assert_eq!(lines[7], format!("{}[===]", " ".repeat(28)));
        assert_eq!(lines[8], "-".repeat(61));
        // To the right by one unit, and leaning to the left by 30 degrees.
        let text = picture(
            "CartPole-v1+frame_stack=2",
            &[[0.0; 4], [1.0, 0.0, -FRAC_PI_6, 0.0]].concat(),
        );
        let text = text.expect("drawn");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[7].find("[===]"), Some(40));
        assert_eq!(
            (lines[6].find('\\'), lines[1].find('\\')),
            (Some(42), Some(36)),
            "{text}"
        );
    }

    #[test]
    fn a_car_stands_on_its_mountain() {
        // At the bottom of the valley, then at the flag.
        let text = picture("MountainCar-v0", &[-FRAC_PI_6, 0.0]).expect("drawn");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[9].find('O'), Some(23), "{text}");
        assert_eq!(&lines[10][23..24], ".", "{text}");
        assert_eq!(lines[0].find('F'), Some(57), "{text}");
        let text = picture("MountainCarContinuous-v0", &[0.45, 0.0]).expect("drawn");
        assert!(text.contains('O') && !text.contains('F'), "{text}");
    }

    #[test]
    fn links_hang_and_pendulums_turn() {
        let lines = drawn("Pendulum-v1", &[0.0, 1.0, 0.0]);
        assert_eq!(lines[5], "O---------+");
        let lines = drawn("Pendulum-v1", &[-1.0, 0.0, 0.0]);
        assert_eq!(lines[4..], ["", "+", "|", "|", "|", "|", "O"]);
        let text = picture("Acrobot-v1", &[1.0, 0.0, 1.0, 0.0, 0.0, 0.0]).expect("drawn");
        let lines: Vec<&str> = text.lines().collect();
        let at = |letter: &str| format!("{}{letter}", " ".repeat(30));
        assert_eq!(lines[4], ".".repeat(61));
        assert_eq!(
            [lines[8], lines[12], lines[16]],
            [at("+"), at("o"), at("O")]
        );
        // The first link to the right, the second up from there.
        let text = picture("Acrobot-v1", &[0.0, 1.0, 0.0, 1.0, 0.0, 0.0]).expect("drawn");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[8], format!("{}+-------o", " ".repeat(30)));
        assert_eq!(lines[4].find('O'), Some(38), "{text}");
    }

    #[test]
    fn pixels_are_letters_and_the_rest_is_refused() {
        let mut seen = vec![0.0; 64];
        (seen[0], seen[9]) = (1.0, 0.5);
        let text = picture("Catch-v0", &seen).expect("drawn");
        assert!(
            text.starts_with("|##              |\n|  ==            |\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 8);
        assert!(matches!(picture("Catch-v0", &[0.0]), Err(Error::Usage(_))));
        assert!(matches!(
            picture("Identity-v0", &[0.0; 4]),
            Err(Error::Usage(_))
        ));
        assert!(matches!(
            picture("gym:Any-v0", &[0.0; 4]),
            Err(Error::Usage(_))
        ));
        assert!(matches!(
            picture("CartPol-v1", &[0.0; 4]),
            Err(Error::UnknownEnv { .. })
        ));
    }
}
