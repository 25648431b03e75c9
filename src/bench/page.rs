//! A report as one page of HTML that needs nothing else: pictures, tables, the machine, how to repeat it.

use super::{
    chart::{Picture, escaped},
    report::Report,
    table::Table,
};

const STYLE: &str = "body{font:15px/1.5 Helvetica,Arial,sans-serif;color:#222;background:#fff;max-width:62em;margin:2em auto;padding:0 1em}\
h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2em}svg{max-width:100%;height:auto}\
table{border-collapse:collapse;margin:.6em 0;font-size:.92em}td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}code{background:#f3f3f3;padding:.1em .3em}";

pub fn page(report: &Report, conditions: &str, pictures: &[Picture], tables: &[Table]) -> String {
    let of = &report.circumstances;
    let mut body =
        format!("<h1>Ways to connect containers</h1>\n<p>{}<br>{}</p>\n", escaped(conditions), escaped(&of.when));
    if report.interrupted {
        body += "<p><strong>The measurement was interrupted: this is what there was by then.</strong></p>\n";
    }
    body += "<h2>Pictures</h2>\n<p>A bar is the median over the rounds, its whisker the 95 % interval of that; × is how many times \
             as fast as the light bar it is.</p>\n";
    body += &pictures.iter().map(|picture| format!("<p>{}</p>\n", picture.svg())).collect::<String>();
    body += "<h2>Tables</h2>\n<p>Packets are those that the sender's interface counted: what the kernel passes on unsegmented is one. \
             CPU is the processor's time of both ends, for each Gbit or each transaction.</p>\n";
    body += &tables.iter().map(table).collect::<String>();
    body += &list("What cannot be ranked", &report.warnings);
    let lacking = report.ways.iter().filter_map(|way| Some(format!("{}: {}", way.title, way.lacking.as_ref()?)));
    body += &list("Not measured", &lacking.collect::<Vec<_>>());
    body += &format!(
        "<h2>How to repeat it</h2>\n<p><code>{}</code> with plumb {}, as root, on a machine that does nothing else.</p>\n",
        escaped(&of.command),
        of.version
    );
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>plumb bench</title><style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )
}

fn table(table: &Table) -> String {
    let row = |cells: &[String], kind: &str| {
        let cells: String = cells.iter().map(|cell| format!("<{kind}>{}</{kind}>", escaped(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = table.rows.iter().map(|cells| row(cells, "td")).collect();
    format!("<h3>{}</h3>\n<table>\n{}{rows}</table>\n", escaped(&table.title), row(&table.headings, "th"))
}

fn list(title: &str, items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items: String = items.iter().map(|item| format!("<li>{}</li>\n", escaped(item))).collect();
    format!("<h2>{title}</h2>\n<ul>\n{items}</ul>\n")
}

#[cfg(test)]
mod tests {
    use super::{
        super::{chart, report::samples::report, table::tables},
        *,
    };

    #[test]
    fn a_page_has_all_there_is_and_asks_for_nothing_else() {
        let mut report = report();
        report.circumstances.command = "plumb bench --ways <all>".into();
        let page = page(&report, "Linux 6.18.0", &chart::pictures(&report), &tables(&report, None));
        for part in
            ["<svg", "Linux 6.18.0", "module ipvlan", "plumb bench --ways &lt;all&gt;", "<td>macvlan bridge</td>"]
        {
            assert!(page.contains(part), "{part}");
        }
        // The name of SVG's language is no address that anybody looks at.
        let elsewhere = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("http") && !elsewhere.contains("src="));
        for element in ["table", "svg", "p", "ul", "li", "tr", "td", "th", "h2", "h3", "g", "text"] {
            let opened = page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
            assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
        }
    }
}
