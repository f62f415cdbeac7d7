//! The files of the page, as they are in the binary: nothing is read from a disk, and nothing comes from elsewhere.
//!
//! What is in `web/vendor/` is uPlot, unchanged; its licence and its version stand beside it.

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, media type, text.
const ASSETS: [(&str, &str, &str); 11] = [
    ("/", HTML, include_str!("../web/index.html")),
    ("/dashboard.css", CSS, include_str!("../web/dashboard.css")),
    ("/dashboard.js", SCRIPT, include_str!("../web/dashboard.js")),
    ("/state.js", SCRIPT, include_str!("../web/state.js")),
    ("/text.js", SCRIPT, include_str!("../web/text.js")),
    ("/glance.js", SCRIPT, include_str!("../web/glance.js")),
    ("/cards.js", SCRIPT, include_str!("../web/cards.js")),
    ("/charts.js", SCRIPT, include_str!("../web/charts.js")),
    ("/lists.js", SCRIPT, include_str!("../web/lists.js")),
    ("/vendor/uplot.js", SCRIPT, include_str!("../web/vendor/uPlot.iife.min.js")),
    ("/vendor/uplot.css", CSS, include_str!("../web/vendor/uPlot.min.css")),
];

/// The media type and the text of the file at a path of ours.
pub(crate) fn at(path: &str) -> Option<(&'static str, &'static str)> {
    ASSETS.iter().find(|(other, ..)| *other == path).map(|&(_, kind, text)| (kind, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a text names a file of ours: `="/x"` in markup, `"./x"` in a script.
    fn named<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
        text.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
    }

    #[test]
    fn whatever_the_page_names_is_there() {
        let (_, page) = at("/").expect("the page");
        let (linked, scripts) = (named(page, "href=\"/"), named(page, "src=\"/"));
        assert!(linked.len() > 3 && scripts.len() == 2, "{linked:?} {scripts:?}");
        for path in linked.into_iter().chain(scripts).filter(|path| path.contains('.')) {
            assert!(at(&format!("/{path}")).is_some(), "{path}");
        }
        for (path, _, text) in ASSETS.iter().filter(|(path, ..)| path.ends_with(".js") && !path.contains("vendor")) {
            for module in named(text, "from \"./") {
                assert!(at(&format!("/{module}")).is_some(), "{module} in {path}");
            }
        }
    }

    #[test]
    fn every_file_is_named_once() {
        for (n, (path, ..)) in ASSETS.iter().enumerate() {
            assert!(ASSETS[..n].iter().all(|(other, ..)| other != path), "{path}");
        }
    }
}
