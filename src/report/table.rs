//! A table of text cells, written for a terminal, as Markdown or as HTML.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::escape::Clean;
use super::format::{Hue, Paint, printable};
use super::section::literal;

/// A table: the first cell of a row names it.
#[derive(Clone, PartialEq, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<(Hue, Vec<String>)>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Column {
    name: &'static str,
    is_number: bool,
}

impl Table {
    /// A table without rows. A name that begins with `#` is that of a column of numbers, without the `#`.
    pub fn new(names: &[&'static str]) -> Table {
        let column = |name: &&'static str| match name.strip_prefix('#') {
            Some(name) => Column { name, is_number: true },
            None => Column { name, is_number: false },
        };
        Table { columns: names.iter().map(column).collect(), rows: vec![] }
    }

    /// Adds a row, which is short of no cell.
    pub fn row<const N: usize>(&mut self, hue: Hue, cells: [String; N]) {
        self.rows.push((hue, cells.into()));
    }

    /// For a terminal: two blanks between the columns, numbers to the right, nothing that steers the terminal.
    pub fn text(&self, paint: Paint) -> String {
        let cells = |cells: &[String]| cells.iter().map(|cell| printable(cell)).collect();
        let rows: Vec<(Hue, Vec<String>)> = self.rows.iter().map(|(h, c)| (*h, cells(c))).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|i| {
                let cells = rows.iter().filter_map(|(_, cells)| cells.get(i));
                let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
                widest.max(self.columns[i].name.chars().count())
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for ((cell, width), column) in cells.zip(&widths).zip(&self.columns) {
                let _ = match column.is_number {
                    true => write!(line, "{cell:>width$}  "),
                    false => write!(line, "{cell:<width$}  "),
                };
            }
            line.trim_end().to_owned()
        };
        let head = line(&mut self.columns.iter().map(|column| column.name));
        let mut out = paint.dye(Hue::Title, &head) + "\n";
        for (hue, cells) in &rows {
            let line = line(&mut cells.iter().map(String::as_str));
            let _ = writeln!(out, "{}", paint.dye(*hue, &line));
        }
        out
    }

    /// As a Markdown table.
    pub(super) fn markdown(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|column| column.name).collect();
        let mut out = format!("| {} |\n|", names.join(" | "));
        for column in &self.columns {
            out.push_str(if column.is_number { "---:|" } else { "---|" });
        }
        out.push('\n');
        for (_, cells) in &self.rows {
            let cells: Vec<String> = cells.iter().map(literal).collect();
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
        out
    }

    /// As an HTML table that scrolls by itself on a narrow screen.
    pub(crate) fn html(&self) -> Markup {
        let class = |column: &Column| column.is_number.then_some("n");
        html! {
            div.scroll {
                table {
                    thead {
                        tr {
                            @for column in &self.columns {
                                th scope="col" class=[class(column)] { (column.name) }
                            }
                        }
                    }
                    @for (hue, cells) in &self.rows {
                        tr class=(hue.class()) {
                            @for (i, (cell, column)) in cells.iter().zip(&self.columns).enumerate() {
                                @if i == 0 {
                                    th scope="row" { (Clean(cell)) }
                                } @else {
                                    td class=[class(column)] { (Clean(cell)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["shape", "#births", "wrong"]);
        table.row(Hue::Good, ["exit".to_owned(), "12,000".to_owned(), "nothing".to_owned()]);
        table.row(Hue::Bad, ["<b>\x1b".to_owned(), "7".to_owned(), "lost 1 birth".to_owned()]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(
            table().text(Paint::Plain),
            "\
shape      births  wrong
exit       12,000  nothing
<b>\\u{1b}       7  lost 1 birth
"
        );
        assert!(table().text(Paint::Ansi).contains("\x1b[31m<b>"));
    }

    #[test]
    fn markdown_stays_text() {
        let markdown = table().markdown();
        assert!(markdown.starts_with("| shape | births | wrong |\n|---|---:|---|\n"), "{markdown}");
        assert!(markdown.contains("| &lt;b>\\\\u{1b} | 7 | lost 1 birth |"), "{markdown}");
    }

    #[test]
    fn html_stays_text() {
        let html = table().html().into_string();
        assert!(
            html.contains("<tr class=\"bad\"><th scope=\"row\">&lt;b&gt;\u{fffd}</th>"),
            "{html}"
        );
        assert!(html.contains("<td class=\"n\">12,000</td><td>nothing</td></tr>"), "{html}");
    }
}
