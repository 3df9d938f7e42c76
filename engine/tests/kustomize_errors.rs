//! What a render says about input that it cannot follow, and what it remembers having read.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests may"
)]

use engine::kustomize::{MapTree, Options, RenderError, render, render_as};

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\n";

fn tree(kustomization: &str) -> MapTree {
    MapTree::new()
        .with("dev/kustomization.yaml", kustomization)
        .with("dev/a.yaml", CONFIG_MAP)
        .with("dev/plain/b.yaml", CONFIG_MAP)
}

fn error(tree: &MapTree) -> RenderError {
    render(tree, "dev").expect_err("the render should fail")
}

#[test]
fn every_error_says_where_and_what_to_do() {
    let table = [
        (
            "resource: [a.yaml]",
            "dev/kustomization.yaml:1: the field \"resource\" is not known here; did you mean \"resources\"?",
        ),
        (
            "resources: [a.yaml]\nimages:\n- name: x\n  newtags: y",
            "dev/kustomization.yaml:4: the field \"newtags\" is not known here; did you mean \"newTag\"?",
        ),
        (
            "resources: [a.yaml]\nspec: 1",
            "dev/kustomization.yaml:2: the field \"spec\" is not known here; remove it",
        ),
        (
            "resources: [missing.yaml]",
            "dev/kustomization.yaml:1: \"dev/missing.yaml\" does not exist; correct the path or commit the file",
        ),
        (
            "resources: [plain]",
            "dev/kustomization.yaml:1: the folder \"plain\" has no kustomization.yaml; add one, or name its files one by one",
        ),
        (
            "resources:\n- https://example.com/x.yaml",
            "dev/kustomization.yaml:2: the remote base \"https://example.com/x.yaml\" is refused: copy it into the repository, or add it as a Git subtree",
        ),
        (
            "resources: ['github.com/a/b?ref=v1']",
            "dev/kustomization.yaml:1: the remote base \"github.com/a/b?ref=v1\" is refused: copy it into the repository, or add it as a Git subtree",
        ),
        (
            "resources: [../../etc/passwd]",
            "dev/kustomization.yaml:1: \"../../etc/passwd\" leads out of the repository; use a path inside of it",
        ),
        (
            "resources: [/etc/passwd]",
            "dev/kustomization.yaml:1: \"/etc/passwd\" leads out of the repository; use a path inside of it",
        ),
        (
            "resources: [a.yaml]\nvalidators: [check.yaml]",
            "dev/kustomization.yaml:2: validators is refused: check with admission policies instead",
        ),
        (
            "resources: [a.yaml]\nhelmCharts:\n- name: x",
            "dev/kustomization.yaml:2: helmCharts is refused: run helm template in CI and commit what it writes",
        ),
        (
            "resources: [a.yaml]\ntransformers: [x.yaml]",
            "dev/kustomization.yaml:2: \"dev/x.yaml\" does not exist; correct the path or commit the file",
        ),
        (
            "resources: [a.yaml]\ngenerators:\n- |\n  apiVersion: example.com/v1\n  kind: Maker\n  metadata: {name: m}",
            "dev/kustomization.yaml:4: the plugin Maker is refused: run it in CI and commit what it writes, or use kustomize's own with apiVersion: builtin",
        ),
        (
            "transformers:\n- |\n  apiVersion: builtin\n  kind: SuffixTransformer\n  metadata: {name: m}\n  suffix: x",
            "dev/kustomization.yaml:3: a SuffixTransformer needs fieldSpecs; name metadata/name",
        ),
        (
            "transformers:\n- |\n  apiVersion: builtin\n  kind: Unheard\n  metadata: {name: m}",
            "dev/kustomization.yaml:3: Unheard is not known here; it must be one of kustomize's transformers, such as PatchTransformer",
        ),
        (
            "openapi: {version: v1.2.3}",
            "dev/kustomization.yaml:1: the schema version \"v1.2.3\" must be v1.21.2",
        ),
        (
            "generators:\n- |\n  apiVersion: builtin\n  kind: IAMPolicyGenerator\n  metadata: {name: m}\n  cloud: other",
            "dev/kustomization.yaml:3: cloud must be gke; write the service account itself for others",
        ),
        (
            "generators:\n- |\n  apiVersion: builtin\n  kind: HelmChartInflationGenerator\n  metadata: {name: m}",
            "dev/kustomization.yaml:3: the plugin HelmChartInflationGenerator is refused: run helm template in CI and commit what it writes",
        ),
        (
            "openapi: {path: a.yaml, version: v1.21.2}",
            "dev/kustomization.yaml:1: openapi is given either by path or by version; remove one",
        ),
        (
            "resources: [a.yaml, a.yaml]",
            "ConfigMap default/a is in dev/a.yaml:1 and again in dev/a.yaml:1; remove one of the two or rename it",
        ),
        ("resources: [.]", "these kustomizations include each other: dev → dev; remove one of the links"),
        (
            "resources: [a.yaml]\nimages: [{name: x, newTag: 1.0}]",
            "dev/kustomization.yaml:2: newTag must be a text, this is a number; write it in quotes: \"1\"",
        ),
        ("resources: a.yaml", "dev/kustomization.yaml:1: resources must be a list, this is a text"),
        (
            "kind: Kustomization\nresources: [a.yaml]\nkind: Kustomization\nlabels:\n- {pairs: {a: b}, pairs: {a: c}}",
            "dev/kustomization.yaml:5:19: the key \"pairs\" is already set in line 5; keep one of the two",
        ),
        (
            "resources: [a.yaml]\nresources: []",
            "dev/kustomization.yaml:2:1: the key \"resources\" is already set in line 1; keep one of the two",
        ),
        ("", "dev/kustomization.yaml:1: the kustomization is empty; name at least one of its resources"),
        (
            "kind: Deployment",
            "dev/kustomization.yaml:1: kind \"Deployment\" is not Kustomization or Component; correct it",
        ),
        (
            "resources: [a.yaml]\nreplicas: [{name: web, count: 2}]",
            "dev/kustomization.yaml:2: no Deployment, ReplicaSet, ReplicationController or StatefulSet is called \"web\"; correct the name",
        ),
        (
            "resources: [a.yaml]\nlabels:\n- pairs: {a: b}\n  fields: [{path: ////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////}]",
            "dev/kustomization.yaml:4: a path has at most 256 names, this one has more; shorten it",
        ),
        (
            "resources: [a.yaml]\npatches:\n- patch: |\n    apiVersion: v1\n    kind: Service\n    metadata: {name: a}",
            "dev/kustomization.yaml:4: there is no Service default/a among the resources; correct kind, name or namespace",
        ),
        (
            "resources: [a.yaml]\npatches:\n- target: {kind: ConfigMap}\n  patch: '[{op: remove, path: /data/none}]'",
            "dev/kustomization.yaml:4: the patch does not fit ConfigMap default/a:",
        ),
        (
            "resources: [a.yaml]\npatches:\n- target: {kind: '('}\n  patch: '[{op: remove, path: /data}]'",
            "dev/kustomization.yaml:3: \"(\" in the target is not a regular expression; correct it",
        ),
        (
            "resources: [a.yaml]\npatches: [{path: none.yaml}]",
            "dev/kustomization.yaml:2: \"dev/none.yaml\" does not exist; correct the path or commit the file",
        ),
        (
            "resources: [a.yaml]\npatchesStrategicMerge:\n- |\n  # nothing\n  # yet",
            "dev/kustomization.yaml:2: patchesStrategicMerge has only empty patches; write one or remove the field",
        ),
        (
            "resources: [a.yaml]\npatchesJson6902:\n- {target: {version: v1, kind: ConfigMap, name: a}, patch: '[]'}",
            "dev/kustomization.yaml:3: the patch is empty; write it or remove the entry",
        ),
        (
            "resources: [a.yaml]\nreplacements:\n- {source: {name: a}, sourceValue: x, targets: [{select: {name: a}}]}",
            "dev/kustomization.yaml:3: source and sourceValue exclude each other; remove one of the two",
        ),
        (
            "resources: [a.yaml]\nreplacements:\n- targets: [{select: {name: a}}]",
            "dev/kustomization.yaml:3: a replacement needs a source or a sourceValue",
        ),
        (
            "resources: [a.yaml]\nreplacements:\n- sourceValue: x\n  targets:\n  - select: {name: '('}",
            "dev/kustomization.yaml:5: \"(\" in the target is not a regular expression; correct it",
        ),
        (
            "resources: [a.yaml]\nreplacements:\n- sourceValue: x\n  targets:\n  - {select: {name: a}, fieldPaths: [data.k.inner]}",
            "dev/kustomization.yaml:3: ConfigMap default/a has no data.k.inner to replace; correct fieldPaths or set options.create",
        ),
        (
            "resources: [a.yaml]\nconfigMapGenerator:\n- {name: a, behavior: merge, literals: [x]}",
            "dev/kustomization.yaml:3: the literal \"x\" must be key=value",
        ),
        (
            "configMapGenerator:\n- {name: none, behavior: merge}",
            "dev/kustomization.yaml:2: there is no ConfigMap default/none to merge with or to replace; remove the behavior or correct the name",
        ),
        (
            "resources: [a.yaml]\nconfigMapGenerator: [{name: a}]",
            "dev/kustomization.yaml:2: ConfigMap default/a exists already (dev/a.yaml:1); set behavior: merge or replace",
        ),
        (
            "components: [../dev]",
            "dev/kustomization.yaml:1: \"../dev\" is no Component; name it under resources",
        ),
        (
            "resources: [a.yaml]\nbuildMetadata: [origin]",
            "dev/kustomization.yaml:2: the field \"origin\" is not known here; did you mean \"originAnnotations, transformerAnnotations, managedByLabel\"?",
        ),
        (
            "resources: [a.yaml]\nvars: [{name: X, objref: {kind: Service, name: s}}]",
            "dev/kustomization.yaml:2: var X: there is no Service s; correct objref",
        ),
    ];
    let problems: Vec<String> = table
        .into_iter()
        .filter_map(|(kustomization, message)| {
            let said = error(&tree(kustomization)).to_string();
            (!said.starts_with(message))
                .then(|| format!("{kustomization:?}\n  said: {said}\n  want: {message}"))
        })
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn errors_in_files_name_those_files() {
    let base = tree("resources: [a.yaml]\npatches: [{path: p.yaml}]\n");
    for (file, content, message) in [
        ("dev/a.yaml", "a: [", "dev/a.yaml:2:1: this is not YAML"),
        ("dev/a.yaml", "a: 1", "dev/a.yaml:1: a Kubernetes object needs apiVersion as a non-empty text"),
        ("dev/a.yaml", "# c\n\n- 1", "dev/a.yaml:3: a Kubernetes object must be a mapping, this is a list"),
        (
            "dev/a.yaml",
            "apiVersion: v1\nkind: A\nmetadata: {name: x}\n---\napiVersion: v1\nkind: A\n",
            "dev/a.yaml:5: a Kubernetes object needs metadata.name",
        ),
        ("dev/p.yaml", "- op: add", "dev/p.yaml:1: this is not a JSON patch"),
        (
            "dev/p.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: [x]",
            "dev/p.yaml:1: at data: the object has a mapping here and the patch a list; correct the patch",
        ),
    ] {
        let said = error(&base.clone().with("dev/p.yaml", CONFIG_MAP).with(file, content)).to_string();
        assert!(said.starts_with(message), "{content:?}\n  said: {said}\n  want: {message}");
    }
    let not_text = base.with("dev/a.yaml", vec![0xff, 0xfe]);
    assert_eq!(error(&not_text).to_string(), "dev/a.yaml is not UTF-8 text; save it as UTF-8");
    assert_eq!(error(&not_text).file(), Some("dev/a.yaml"));
}

#[test]
fn a_missing_path_is_told_apart() {
    for path in ["nowhere", "dev/a.yaml/x", "../up"] {
        let error = render(&tree("resources: [a.yaml]"), path).expect_err(path);
        assert!(error.is_missing_path(), "{path}: {error}");
    }
}

#[test]
fn cycles_name_every_folder() {
    let tree = MapTree::new()
        .with("dev/kustomization.yaml", "resources: [../a]")
        .with("a/kustomization.yaml", "resources: [../b]")
        .with("b/kustomization.yaml", "resources: [../a]");
    assert_eq!(
        error(&tree).to_string(),
        "these kustomizations include each other: a → b → a; remove one of the links"
    );
}

#[test]
fn bases_that_multiply_are_stopped() {
    let mut tree = MapTree::new().with("dev/kustomization.yaml", "resources: [../l0]");
    for level in 0..20 {
        let next = level + 1;
        tree = tree
            .with(&format!("l{level}/kustomization.yaml"), format!("resources: [../x{level}, ../y{level}]"))
            .with(&format!("x{level}/kustomization.yaml"), format!("namePrefix: x\nresources: [../l{next}]"))
            .with(&format!("y{level}/kustomization.yaml"), format!("namePrefix: z\nresources: [../l{next}]"));
    }
    tree = tree.with("l20/kustomization.yaml", "resources: [a.yaml]").with("l20/a.yaml", CONFIG_MAP);
    assert!(error(&tree).to_string().contains("this render has more than"), "{}", error(&tree));
}

#[test]
fn symlinks_resolve_inside_of_the_tree_only() {
    let base = MapTree::new()
        .with("shared/a.yaml", CONFIG_MAP)
        .with("dev/kustomization.yaml", "resources: [link.yaml]");
    let linked = base.clone().with_symlink("dev/link.yaml", "../shared/a.yaml");
    assert_eq!(render(&linked, "dev").map(|r| r.objects.len()), Ok(1));
    let folder = MapTree::new()
        .with("real/kustomization.yaml", "resources: [a.yaml]")
        .with("real/a.yaml", CONFIG_MAP)
        .with_symlink("dev", "real");
    assert_eq!(render(&folder, "dev").map(|r| r.sources[0].file.clone()), Ok("real/a.yaml".to_owned()));
    let out = base.clone().with_symlink("dev/link.yaml", "../../etc/passwd");
    assert_eq!(
        error(&out).to_string(),
        "dev/link.yaml is a symlink that leads out of the repository; commit the file itself"
    );
    let absolute = base.clone().with_symlink("dev/link.yaml", "/etc/passwd");
    assert!(matches!(error(&absolute), RenderError::Escape { .. }));
    let endless =
        base.with_symlink("dev/link.yaml", "other.yaml").with_symlink("dev/other.yaml", "link.yaml");
    assert!(matches!(error(&endless), RenderError::SymlinkLoop { .. }));
}

#[test]
fn a_plain_folder_is_read_in_the_order_of_its_paths() {
    let named = |name: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n");
    let tree = MapTree::new()
        .with("dev/z.yaml", named("z"))
        .with("dev/b/c.json", r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}"#)
        .with("dev/b/a.yml", named("a"))
        .with("dev/notes.md", "# no manifest")
        .with("dev/.hidden.yaml", "not: an object")
        .with("dev/over/kustomization.yaml", "namePrefix: p-\nresources: [x.yaml]")
        .with("dev/over/x.yaml", named("x"));
    let rendered = render(&tree, "dev").unwrap();
    let names: Vec<&str> = rendered.objects.iter().map(engine::object::Object::name).collect();
    assert_eq!(names, ["a", "c", "p-x", "z"]);
    assert_eq!(rendered.sources[3].to_string(), "dev/z.yaml:1");
    assert!(!rendered.reads.unchanged(&tree.clone().with("dev/new.yaml", named("new"))));
    assert!(rendered.reads.unchanged(&tree.with("elsewhere/new.yaml", named("new"))));
}

#[test]
fn what_was_read_tells_whether_a_new_tree_renders_the_same() {
    let tree =
        tree("resources: [a.yaml]\nconfigMapGenerator: [{name: g, files: [f.txt]}]").with("dev/f.txt", "1");
    let rendered = render(&tree, "dev").unwrap();
    let same = |tree: &MapTree| rendered.reads.unchanged(tree);
    assert!(same(&tree));
    assert!(same(&tree.clone().with("other/x", "1").with("dev/unused.yaml", "x")));
    assert!(!same(&tree.clone().with("dev/a.yaml", format!("{CONFIG_MAP}#"))));
    assert!(!same(&tree.clone().with("dev/f.txt", "2")));
    assert!(!same(&tree.clone().without("dev/f.txt")));
    // A second kustomization file would be an error: that it was missing has been read too.
    assert!(!same(&tree.clone().with("dev/kustomization.yml", "")));
    assert!(!same(&tree.clone().without("dev/a.yaml").with_symlink("dev/a.yaml", "plain/b.yaml")));
    assert!(rendered.reads.files().any(|(path, id)| path == "dev/f.txt" && id.is_some()));
    let broken = tree.clone().with("dev/a.yaml", "a: [");
    let reads = render_as(Options::default(), &broken, "dev").expect_err("it does not parse").reads;
    assert!(reads.unchanged(&broken) && !reads.unchanged(&tree));
}

#[test]
fn two_versions_of_one_object_are_one_identity_too_many() {
    let tree = MapTree::new().with(
        "dev/a.yaml",
        "apiVersion: x.io/v1\nkind: W\nmetadata: {name: w}\n---\napiVersion: x.io/v2\nkind: W\nmetadata: {name: w}\n",
    );
    assert_eq!(
        error(&tree).to_string(),
        "W.x.io w is in dev/a.yaml:1 and again in dev/a.yaml:5; remove one of the two or rename it"
    );
}

#[test]
fn small_repositories_cannot_make_huge_objects() {
    let doubling: String =
        (0..60).map(|at| format!("    - {{op: copy, from: /data, path: /data/c{at}}}\n")).collect();
    let copies = tree(&format!(
        "resources: [a.yaml]\npatches:\n- target: {{kind: ConfigMap}}\n  patch: |\n{doubling}"
    ));
    let said = error(&copies).to_string();
    assert!(said.contains("too large") || said.contains("deeper than"), "{said}");

    let replacement = "- {source: {kind: ConfigMap, fieldPath: data}, targets: [{select: {kind: ConfigMap}, fieldPaths: [data.r], options: {create: true}}]}\n";
    let nested = tree(&format!("resources: [a.yaml]\nreplacements:\n{}", replacement.repeat(200)));
    assert!(render(&nested, "dev").is_err());

    let prefix = tree(&format!("resources: [a.yaml]\nnamePrefix: {}", "x".repeat(600)));
    assert_eq!(
        error(&prefix).to_string(),
        "dev/kustomization.yaml:2: namePrefix has more than 512 characters; shorten it"
    );

    let many: String = (0..300)
        .map(|at| format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{at}}}\n"))
        .collect();
    let labelled =
        tree(&format!("resources: [many.yaml]\ncommonAnnotations: {{a: \"{}\"}}", "x".repeat(1_000_000)));
    let said = error(&labelled.with("dev/many.yaml", many)).to_string();
    assert!(said.contains("larger than a render may read"), "{said}");
}

#[test]
fn blank_namespaces_of_service_accounts_are_refused() {
    let binding = "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: b}\nsubjects:\n- kind: ServiceAccount\n  name: a\n  namespace:\n";
    for settings in ["", "namePrefix: p-\n"] {
        let tree = tree(&format!("resources: [a.yaml, b.yaml]\n{settings}")).with("dev/b.yaml", binding);
        assert_eq!(
            error(&tree).to_string(),
            "dev/b.yaml:1: the namespace of a service account is blank; name one or remove the field"
        );
    }
}
