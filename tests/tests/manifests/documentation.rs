//! The page that says where each part of the architecture is: complete, and about files that exist.

use crate::repository;

#[test]
fn every_part_of_the_architecture_has_a_place_and_a_proof() {
    let page = std::fs::read_to_string(repository().join("docs/dhakacart.md")).unwrap();
    let (_, table) = page.split_once("## From the architecture").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| the architecture says"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert!(rows.len() > 80, "{} rows", rows.len());
    let tests = std::fs::read_dir(repository().join("tests/tests/manifests")).unwrap();
    let tests: String = tests.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    for row in rows {
        assert!(row.len() == 3 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        // Files that are named exist.
        for cell in &row[1..] {
            for named in cell.split('`').skip(1).step_by(2) {
                let path = repository().join(named);
                let is_path =
                    ["environments/", ".github/", "docs/", "tests/"].iter().any(|top| named.starts_with(top));
                assert!(!is_path || path.exists(), "{named} does not exist: {row:?}");
            }
        }
        // And so do the tests of this program.
        if let Some(rest) = row[2].strip_prefix("M ") {
            let own = rest.split(';').next().unwrap();
            for name in own.split('`').skip(1).step_by(2) {
                assert!(tests.contains(&format!("fn {name}(")), "there is no test {name}: {row:?}");
            }
        }
    }
}
