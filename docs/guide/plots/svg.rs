//! As much of SVG as the plots need. Positions are whole pixels, so that the files are the same everywhere.

use std::fmt::Write;

/// Inks that can be told apart by everybody, on light and on dark paper.
const STYLE: &str = "\
<style>
text{font:13px system-ui,sans-serif;fill:#333}
.small{font-size:11px;fill:#666}
.name{font-family:ui-monospace,monospace;font-weight:600}
.grid{stroke:#ddd}
.axis{stroke:#888}
.pass{fill:#0969da}
.deny{fill:#cf222e;opacity:.55}
.line{fill:none;stroke-width:2}
.a{stroke:#0969da}.b{stroke:#bc4c00}.c{stroke:#1a7f37;stroke-dasharray:7 3}.d{stroke:#8250df;stroke-dasharray:2 3}
.area{fill:#0969da;opacity:.25}
.shade{fill:#888;opacity:.15}
@media (prefers-color-scheme:dark){
text{fill:#ddd}.small{fill:#aaa}.grid{stroke:#333}.axis{stroke:#777}
.pass{fill:#58a6ff}.deny{fill:#ff7b72}.area{fill:#58a6ff}
.a{stroke:#58a6ff}.b{stroke:#f0883e}.c{stroke:#56d364}.d{stroke:#bc8cff}}
</style>
";

/// A picture in the making.
pub(super) struct Svg {
    body: String,
    width: u64,
    height: u64,
    title: String,
}

impl Svg {
    /// The title is what is read to those who do not see.
    pub(super) fn new(width: u64, height: u64, title: &str) -> Svg {
        Svg {
            body: String::new(),
            width,
            height,
            title: title.to_owned(),
        }
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.body, "{element}").expect("a string takes everything");
    }

    /// A text that begins at a point of its base line.
    pub(super) fn text(&mut self, class: &str, x: u64, y: u64, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.push(format_args!(
            r#"<text class="{class}" x="{x}" y="{y}">{text}</text>"#
        ));
    }

    /// The same, centred.
    pub(super) fn centred(&mut self, class: &str, x: u64, y: u64, text: &str) {
        self.push(format_args!(
            r#"<text class="{class}" text-anchor="middle" x="{x}" y="{y}">{text}</text>"#
        ));
    }

    pub(super) fn rect(&mut self, class: &str, x: u64, y: u64, width: u64, height: u64) {
        self.push(format_args!(
            r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}"/>"#
        ));
    }

    pub(super) fn line(&mut self, class: &str, from: (u64, u64), to: (u64, u64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.push(format_args!(
            r#"<line class="{class}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>"#
        ));
    }

    /// Through these points, of which those that a straight line passes anyway are left out.
    pub(super) fn path(&mut self, class: &str, points: impl IntoIterator<Item = (u64, u64)>) {
        let mut kept = Vec::<(u64, u64)>::new();
        for (x, y) in points {
            if let [.., a, b] = &kept[..]
                && (a.0 == b.0 && b.0 == x || a.1 == b.1 && b.1 == y)
            {
                kept.pop();
            }
            kept.push((x, y));
        }
        let mut d = String::new();
        for (at, (x, y)) in kept.into_iter().enumerate() {
            let command = if at == 0 { 'M' } else { 'L' };
            write!(d, "{command}{x} {y}").expect("a string takes everything");
        }
        self.push(format_args!(r#"<path class="{class}" d="{d}"/>"#));
    }

    pub(super) fn finish(self) -> String {
        let Svg {
            body,
            width,
            height,
            title,
        } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\">\n<title>{title}</title>\n{STYLE}{body}</svg>\n"
        )
    }
}

/// Where milliseconds are, from left to right.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    pub(super) left: u64,
    pub(super) width: u64,
    pub(super) until: u64,
}

impl Axis {
    pub(super) fn x(&self, at: u64) -> u64 {
        self.left + at * self.width / self.until
    }

    /// Lines from top to bottom every so many milliseconds, with seconds below.
    pub(super) fn draw(&self, svg: &mut Svg, top: u64, bottom: u64, every: usize) {
        for at in (0..=self.until).step_by(every) {
            let x = self.x(at);
            svg.line("grid", (x, top), (x, bottom));
            svg.centred("small", x, bottom + 15, &format!("{} s", at / 1_000));
        }
    }
}
