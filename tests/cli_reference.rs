//! The command line's reference: written from the program's own help, so that the page and the program agree.

#[test]
fn the_reference_is_what_the_program_says() {
    let written = k8slab::cli::reference();
    let path = "docs/cli.md";
    if std::env::var_os("K8SLAB_UPDATE_DOCS").is_some() {
        std::fs::write(path, &written).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == written,
        "`{path}` is out of date: run this test with K8SLAB_UPDATE_DOCS=1"
    );
}
