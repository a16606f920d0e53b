//! The picture: processor time of one request as bars, the program's part and the kernel's, readable in
//! light and in dark.

use std::fmt::Write as _;

use crate::peers::Peer;
use crate::report::Outcome;

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 24.0;
/// Where bars begin, and how long the longest may be.
const LEFT: f64 = 212.0;
const LONGEST: f64 = 360.0;
const ROW: f64 = 26.0;
const BAR: f64 = 16.0;
/// What is measured besides small requests has other units of time.
const SHOWN: [&str; 2] = ["read", "push"];

const STYLE: &str = "  <style>
    svg { --paper: #ffffff; --edge: #6b7280; --ink: #1f2430; --soft: #4b5563; --user: #0072b2; --kernel: #9cc9e6 }
    @media (prefers-color-scheme: dark) {
      svg { --paper: #15181e; --edge: #8b93a1; --ink: #eef0f4; --soft: #b4bbc7; --user: #56b4e9; --kernel: #2f5f80 }
    }
    text { font: 13px Inter, system-ui, sans-serif; fill: var(--ink); font-variant-numeric: tabular-nums }
    .title, .ours { font-weight: 600 }
    .soft { fill: var(--soft); font-size: 12px }
    .user { fill: var(--user) }
    .kernel { fill: var(--kernel) }
    .axis { stroke: var(--edge) }
  </style>
";

/// The picture of the cases that it shows, or nothing if none of them was measured.
pub fn draw(outcomes: &[Outcome<'_>], caption: &str) -> Option<String> {
    let shown = outcomes.iter().filter(|outcome| SHOWN.contains(&outcome.case.name));
    let (mut body, mut y) = (String::new(), MARGIN + 14.0);
    let text = |body: &mut String, class: &str, x: f64, y: f64, said: &str| {
        let _ = writeln!(body, "  <text class=\"{class}\" x=\"{x}\" y=\"{y}\">{said}</text>");
    };
    for outcome in shown {
        text(&mut body, "title", MARGIN, y, outcome.case.title);
        let top = y + 12.0;
        let cpu = |peer: &Peer| outcome.median(*peer, |run| run.cpu);
        let most = outcome.runs.keys().map(cpu).fold(0.0, f64::max);
        for peer in outcome.runs.keys() {
            let (all, user) = (cpu(peer), outcome.median(*peer, |run| run.user));
            let (length, part) = (LONGEST * all / most, LONGEST * user / most);
            y += ROW;
            let class = if *peer == Peer::Proxy { "ours" } else { "name" };
            text(&mut body, class, MARGIN, y, peer.title());
            let bar = y - BAR + 4.0;
            for (class, from, length) in [("user", 0.0, part), ("kernel", part, length - part)] {
                let from = LEFT + from;
                let _ = writeln!(
                    body,
                    "  <rect class=\"{class}\" x=\"{from:.1}\" y=\"{bar}\" width=\"{length:.1}\" height=\"{BAR}\"/>"
                );
            }
            let ratio = outcome
                .runs
                .contains_key(&Peer::Bookkeeping)
                .then(|| format!(", {:.2} × nginx", outcome.ratio(*peer, Peer::Bookkeeping)));
            let said = format!("{all:.1} µs{}", ratio.unwrap_or_default());
            text(&mut body, class, LEFT + length + 8.0, y, &said);
        }
        let bottom = y + 8.0;
        let _ = writeln!(body, "  <path class=\"axis\" d=\"M{LEFT} {top} V{bottom}\"/>");
        y += 48.0;
    }
    if body.is_empty() {
        return None;
    }
    for (class, x, said) in
        [("user", MARGIN, "in the program"), ("kernel", MARGIN + 140.0, "in the kernel")]
    {
        let top = y - 22.0;
        let _ = writeln!(
            body,
            "  <rect class=\"{class}\" x=\"{x}\" y=\"{top}\" width=\"12\" height=\"12\"/>"
        );
        text(&mut body, "soft", x + 20.0, y - 12.0, said);
    }
    text(
        &mut body,
        "soft",
        MARGIN + 280.0,
        y - 12.0,
        "processor time of one request; × nginx with the same bookkeeping",
    );
    text(&mut body, "soft", MARGIN, y + 10.0, &escaped(caption));
    let height = y + MARGIN;
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-labelledby=\"title\">\n\
         \x20 <title id=\"title\">Processor time of one request: this proxy beside others</title>\n{STYLE}\
         \x20 <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"var(--paper)\"/>\n{body}</svg>\n"
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcome;

    #[test]
    fn the_picture_shows_every_peer_and_its_ratio_in_light_and_dark() {
        let costs: [(Peer, &[f64]); 2] = [(Peer::Bookkeeping, &[10.0]), (Peer::Proxy, &[12.5])];
        let picture = draw(&[outcome("read", &costs)], "here & now").expect("a picture");
        for said in
            ["this proxy", "12.5 µs, 1.25 × nginx", "prefers-color-scheme: dark", "here &amp; now"]
        {
            assert!(picture.contains(said), "{said}: {picture}");
        }
        assert!(draw(&[outcome("answers", &costs)], "").is_none());
    }
}
