//! The page, inside the binary.
//!
//! **Invariant:** every file the page names is here; nothing is taken from anywhere else. **Left out:** building: the files
//! are what the browser gets.

/// A file of the page: its path, its type, its text.
pub type Asset = (&'static str, &'static str, &'static str);

pub const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// The form that asks for a token.
pub const LOGIN: &str = include_str!("page/login.html");

/// What everybody gets who may see anything.
pub const ASSETS: &[Asset] = &[
    ("/", HTML, include_str!("page/index.html")),
    ("/style.css", CSS, include_str!("page/style.css")),
    ("/icon.svg", SVG, include_str!("page/icon.svg")),
    ("/main.js", JS, include_str!("page/main.js")),
    ("/timeline.js", JS, include_str!("page/timeline.js")),
    ("/draw.js", JS, include_str!("page/draw.js")),
    ("/detail.js", JS, include_str!("page/detail.js")),
    ("/search.js", JS, include_str!("page/search.js")),
    ("/charts.js", JS, include_str!("page/charts.js")),
    ("/tables.js", JS, include_str!("page/tables.js")),
    ("/overview.js", JS, include_str!("page/overview.js")),
    ("/util.js", JS, include_str!("page/util.js")),
];

/// The file at a path.
pub fn at(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.0 == path)
}
