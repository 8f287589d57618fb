//! Reads the tables of the pages beside it, for the tests that hold them together with the code. Pure.

/// The rows of the table under `<!-- table: NAME -->` without its head, as cells without the marks of code.
pub(crate) fn rows(page: &str, name: &str) -> Vec<Vec<String>> {
    let mark = format!("<!-- table: {name} -->");
    let after = page.lines().skip_while(|line| *line != mark).skip(1);
    let table = after.skip_while(|line| line.is_empty()).take_while(|line| line.starts_with('|'));
    let cell = |text: &str| text.trim().replace('`', "");
    let rows = table.skip(2).map(|row| row.trim_matches('|').split('|').map(cell).collect());
    let rows: Vec<Vec<String>> = rows.collect();
    assert!(!rows.is_empty(), "the page has no table {name}");
    rows
}
