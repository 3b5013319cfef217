//! Tables in the docs: what stands between two markers is written by the command that measured it.

use std::path::Path;

use anyhow::Context as _;

/// Replaces what stands between `<!-- NAME -->` and `<!-- end of NAME -->` in a file, and says on which machine
/// it was made.
///
/// # Errors
/// When the file cannot be read or written, or has no such markers.
pub fn fill(file: &Path, name: &str, table: &str) -> anyhow::Result<()> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| shown.to_string())?;
    let content = format!("{table}\nMeasured on {}.\n", machine());
    let filled = replaced(&text, name, &content)
        .with_context(|| format!("{shown} has no place for {name:?}"))?;
    std::fs::write(file, filled).with_context(|| shown.to_string())
}

fn replaced(text: &str, name: &str, content: &str) -> Option<String> {
    let (begin, end) = (
        format!("<!-- {name} -->"),
        format!("<!-- end of {name} -->"),
    );
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n\n{content}\n{end}{after}"))
}

/// The processor, as the kernel names it, and how many of it there are.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |line: &str| {
        line.split_once(':')
            .map(|(_, value)| value.trim().to_owned())
    };
    let mut models = info
        .lines()
        .filter(|l| l.starts_with("model name"))
        .filter_map(field);
    let model = models
        .next()
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let version = env!("CARGO_PKG_VERSION");
    format!("{count} × {model}, Evenkeel {version}, release build")
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let text = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n";
        let expected = "a\n<!-- x -->\n\nnew\n\n<!-- end of x -->\nb\n";
        assert_eq!(replaced(text, "x", "new\n").as_deref(), Some(expected));
        assert_eq!(replaced(expected, "x", "new\n").as_deref(), Some(expected));
        assert_eq!(replaced(text, "y", "new"), None);
    }
}
