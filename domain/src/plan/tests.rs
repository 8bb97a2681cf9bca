use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    protocol::{MethodSpec, ParameterSpec, ProtocolSpec},
    resources::ResourceRequirements,
    workflow::TaskSpec,
};

const SECOND: Duration = Duration::from_secs(1);

fn catalog() -> ProtocolCatalog {
    let answer = ParameterSpec {
        additional_properties: false,
        ..ParameterSpec::object([("number", ParameterSpec::integer())])
    };
    let declared = MethodSpec {
        timeout_seconds: Some(7 * SECOND),
        retry_policy: Some(RetryPolicy { max_attempts: 7, ..RetryPolicy::default() }),
        resource_requirements: Some(ResourceRequirements {
            memory_mb: Some(70),
            cpu_cores: Some(0.7),
            execution_timeout: Some(77 * SECOND),
            ..ResourceRequirements::default()
        }),
        ..MethodSpec::new("declared")
    };
    let limited = MethodSpec { timeout_seconds: None, ..declared.clone() };
    let test = ProtocolSpec::new("test", "v1.0".parse().unwrap())
        .method(MethodSpec { additional_params: true, ..MethodSpec::new("run") })
        .method(MethodSpec::new("strict").param("count", ParameterSpec::integer().minimum(1)))
        .method(MethodSpec { additional_params: true, ..MethodSpec::new("typed") }.returns(answer))
        .method(MethodSpec { name: "limited".into(), ..limited })
        .method(MethodSpec { effect: Effect::Pure, ..MethodSpec::new("pure") })
        .method(declared);
    let mut catalog = ProtocolCatalog::new();
    catalog.register(test).unwrap();
    catalog
}

fn task(id: &str) -> TaskSpec {
    TaskSpec::new(id, "test/run")
}

fn workflow(tasks: impl IntoIterator<Item = TaskSpec>) -> WorkflowSpec {
    tasks.into_iter().fold(WorkflowSpec::new("w"), WorkflowSpec::task)
}

fn problems_of(refusal: SubmitError) -> Vec<Problem> {
    let SubmitError::Invalid(problems) = refusal else { panic!("{refusal:?}") };
    problems
}

/// What is wrong with the shape, as text with place and help.
fn wrong_shape(spec: WorkflowSpec) -> Vec<String> {
    let problems = problems_of(Draft::new(spec).unwrap_err());
    problems.iter().map(ToString::to_string).collect()
}

fn planned(spec: WorkflowSpec) -> Result<Plan, Vec<Problem>> {
    let draft = Draft::new(spec).map_err(problems_of)?;
    draft.plan(&catalog(), &PlanDefaults::default()).map_err(problems_of)
}

fn codes(problems: &[Problem]) -> Vec<(&str, ErrorCode)> {
    problems.iter().map(|problem| (problem.pointer.as_str(), problem.code)).collect()
}

/// Ids and names that nobody gave are made up, and stand in the spec that is stored.
/// What runs before its workflow is stored must leave nothing, and cannot have been run before.
#[test]
fn a_few_pure_tasks_of_a_new_id_may_begin_early() {
    let pure = |id: &str| TaskSpec::new(id, "test/pure");
    let unnamed =
        |tasks: Vec<TaskSpec>| tasks.into_iter().fold(WorkflowSpec::new("w"), WorkflowSpec::task);
    let may = |spec: WorkflowSpec, first: u32| {
        planned(spec).unwrap().may_begin_early(&(0..first).collect::<Vec<_>>())
    };
    assert!(may(unnamed(vec![pure("a"), task("b").after("a")]), 1));
    assert!(!may(unnamed(vec![pure("a"), task("b")]), 2), "one of them has an effect");
    assert!(!may(unnamed(vec![pure("a")]).id("w"), 1), "the id may be there already");
    let alike = |count: u32| unnamed((0..count).map(|n| pure(&format!("t{n}"))).collect());
    assert!(may(alike(256), 256) && !may(alike(257), 257));
}

#[test]
fn what_was_left_open_is_filled_in() {
    let draft =
        Draft::new(workflow([task("").named("First step"), task(""), task("own")])).unwrap();
    let ids: Vec<_> = draft.tasks.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(ids, ["task-1", "task-2", "own"]);
    let names: Vec<_> = draft.tasks.iter().map(|task| &*task.name).collect();
    assert_eq!(names, ["First step", "task-2", "own"]);
    assert_eq!(draft.spec.id.as_ref(), Some(&draft.id));
    assert_eq!(draft.spec.tasks[1].id, "task-2");
    let again = Draft::new(WorkflowSpec::clone(&draft.spec)).unwrap();
    assert_eq!((again.id, again.spec), (draft.id, draft.spec), "a stored one reads the same");
}

/// An author sees all that is wrong in one go, each with its place.
#[test]
fn everything_wrong_with_the_shape_is_reported_at_once() {
    let mut spec = workflow([
        task("a").timeout(Duration::ZERO).total_timeout(Duration::ZERO),
        task("a").after("nobody"),
        task("c").retry(RetryPolicy { max_attempts: 0, ..RetryPolicy::default() }),
        task("d").resources(ResourceRequirements {
            cpu_cores: Some(f64::NAN),
            ..ResourceRequirements::default()
        }),
        task("e").params(json!({"x": {"y": "${nobody.there}"}})),
    ])
    .timeout(Duration::ZERO)
    .max_parallel_tasks(0)
    .id("");
    spec.name = " ".to_owned();
    let problems = problems_of(Draft::new(spec).unwrap_err());
    let mut pointers: Vec<_> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
    pointers.sort_unstable();
    assert_eq!(
        pointers,
        [
            "/id",
            "/max_parallel_tasks",
            "/name",
            "/tasks/0/timeout",
            "/tasks/0/total_timeout",
            "/tasks/1/dependencies/0",
            "/tasks/1/id",
            "/tasks/2/retry/max_attempts",
            "/tasks/3/resources/cpu_cores",
            "/tasks/4/parameters/x/y",
            "/timeout",
        ]
    );
    assert_eq!(
        wrong_shape(WorkflowSpec::new("empty")),
        ["/tasks: a workflow needs at least one task"]
    );
}

/// A mistyped name is the commonest fault; the nearest one is offered, and nothing far off.
#[test]
fn an_unknown_dependency_names_the_nearest_task() {
    let named = |wanted: &str| {
        wrong_shape(workflow([
            task("collect"),
            task("b").named("Make report"),
            task("c").after(wanted),
        ]))
    };
    let prefix = "/tasks/2/dependencies/0: no task has the id or name";
    assert_eq!(named("colect"), [format!("{prefix} `colect` (did you mean `collect`?)")]);
    assert_eq!(
        named("Make repotr"),
        [format!("{prefix} `Make repotr` (did you mean `Make report`?)")]
    );
    assert_eq!(named("something else"), [format!("{prefix} `something else`")]);
}

/// Two tasks of one name: a dependency by that name would be a guess.
#[test]
fn a_name_that_two_tasks_have_means_neither() {
    let twins = |wanted: &str| {
        workflow([task("a").named("twin"), task("b").named("twin"), task("c").after(wanted)])
    };
    let expected = "/tasks/2/dependencies/0: `twin` is ambiguous: several tasks have this name (name the task by its id)";
    assert_eq!(wrong_shape(twins("twin")), [expected]);
    assert_eq!(Draft::new(twins("b")).unwrap().edges, [(2, 1)]);
}

/// An id goes before the name of another task.
#[test]
fn an_id_is_found_before_a_name() {
    let spec = workflow([task("a").named("b"), task("b").named("a"), task("c").after("a")]);
    assert_eq!(Draft::new(spec).unwrap().edges, [(2, 0)]);
}

/// An id twice is told where it stands the second time.
#[test]
fn an_id_is_used_once() {
    let spec = workflow([task("a"), task("b"), task("a")]);
    assert_eq!(wrong_shape(spec), ["/tasks/2/id: id `a` is used by task 1 already"]);
    // One that is made up may meet one that was chosen.
    let spec = workflow([task("task-2"), task("")]);
    assert_eq!(wrong_shape(spec), ["/tasks/1/id: id `task-2` is used by task 1 already"]);
}

/// A reference is a dependency, also on the task itself: the circle is found where circles are.
#[test]
fn references_are_dependencies() {
    let spec = workflow([
        task("a"),
        task("b").params(json!(["${a.x}", "and ${a.y} ${c:-0}"])).after("a"),
        task("c").params(json!({"own": "${c.x}"})),
    ]);
    let mut edges = Draft::new(spec).unwrap().edges;
    edges.sort_unstable();
    edges.dedup();
    assert_eq!(edges, [(1, 0), (1, 2), (2, 2)]);
    assert_eq!(Draft::new(workflow([task("a").after("a")])).unwrap().edges, [(0, 0)]);
}

/// A method that is not there is reported with its place; so is every parameter that does not fit,
/// as far as it is known before the references are resolved.
#[test]
fn methods_and_parameters_are_checked_at_once() {
    let strict = |id: &str, params: Value| TaskSpec::new(id, "test/strict").params(params);
    let problems = planned(workflow([
        TaskSpec::new("a", "test/nothing"),
        TaskSpec::new("b", "nobody/run"),
        strict("c", json!({"count": 0})),
        strict("d", json!({"count": "${c.n}", "other": 1})),
        strict("e", json!({"count": "${c.n}"})),
    ]))
    .unwrap_err();
    assert_eq!(
        codes(&problems),
        [
            ("/tasks/0/method", ErrorCode::MethodNotFound),
            ("/tasks/1/method", ErrorCode::ProtocolNotFound),
            ("/tasks/2/parameters/count", ErrorCode::InvalidParams),
            ("/tasks/3/parameters/other", ErrorCode::InvalidParams),
        ]
    );
}

/// A path that the schema of the result rules out can never have a value, unless there is a
/// fallback for that.
#[test]
fn a_path_that_no_result_has_is_refused() {
    let typed = || TaskSpec::new("typed", "test/typed");
    let reading = |text: &str| workflow([typed(), task("b").params(json!({"x": text}))]);
    let problems = planned(reading("${typed.numbr}")).unwrap_err();
    assert_eq!(codes(&problems), [("/tasks/1/parameters/x", ErrorCode::TaskParameterError)]);
    assert_eq!(problems[0].help.as_deref(), Some("it has number"));
    for fine in [
        "${typed.number}",
        "${typed.result.number}",
        "${typed}",
        "${typed.numbr:-0}",
        "${typed.$.status}",
        "${b2.anything}",
    ] {
        let mut spec = reading(fine);
        spec.tasks.push(task("b2"));
        assert!(planned(spec).is_ok(), "{fine}");
    }
}

/// The limit that a Python task gives counts, by either way, and not the parameter's default.
#[test]
fn the_limit_of_a_python_task_is_its_own_parameter() {
    let python = |id: &str, extra: Value| {
        let mut params = json!({"code": "1"});
        params.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        TaskSpec::new(id, "python/execute").params(params)
    };
    let plan = Draft::new(workflow([
        python("default", json!({})),
        python("task", json!({})).timeout(60 * SECOND),
        python("parameter", json!({"timeout": 600})),
        python("both", json!({"timeout": 600})).timeout(60 * SECOND),
    ]));
    let plan = plan.unwrap().plan(&ProtocolCatalog::builtin(), &PlanDefaults::default()).unwrap();
    let limits: Vec<_> = plan.tasks.iter().map(|task| task.timeout.as_secs()).collect();
    assert_eq!(limits, [30, 60, 600, 60]);
}

/// What a task says goes before what its method says, and that before the settings.
#[test]
fn a_task_beats_its_method_and_a_method_the_settings() {
    let own = ResourceRequirements {
        memory_mb: Some(5),
        execution_timeout: Some(55 * SECOND),
        ..ResourceRequirements::default()
    };
    let policy = RetryPolicy { max_attempts: 5, ..RetryPolicy::default() };
    let plan = planned(workflow([
        TaskSpec::new("settings", "test/run"),
        TaskSpec::new("method", "test/declared"),
        TaskSpec::new("limit", "test/limited"),
        TaskSpec::new("need", "test/declared").resources(own.clone()),
        TaskSpec::new("own", "test/declared").resources(own).timeout(5 * SECOND).retry(policy),
    ]))
    .unwrap();
    let warnings: Vec<_> = plan
        .tasks
        .iter()
        .map(|task| (task.timeout.as_secs(), task.retry.max_attempts, task.need))
        .collect();
    let need = |cpu_millicores, memory_mib| Resources {
        slots: 1,
        cpu_millicores,
        memory_mib,
        ..Resources::default()
    };
    assert_eq!(
        warnings,
        [
            (300, 1, need(0, 0)),
            (7, 7, need(700, 70)),
            (77, 7, need(700, 70)),
            (55, 7, need(700, 5)),
            (5, 5, need(700, 5)),
        ]
    );
}

fn again(
    spec: &WorkflowSpec,
    catalog: &ProtocolCatalog,
    needs: &Needs,
    settled: &[usize],
) -> Replanned {
    let draft = Draft::new(spec.clone()).unwrap();
    draft.plan_again(catalog, &PlanDefaults::default(), needs, |index| settled.contains(&index))
}

/// What a process does not know it is not to run; what has settled needs nobody.
#[test]
fn a_stored_workflow_whose_method_is_not_known_here_is_not_for_this_process() {
    let spec = workflow([TaskSpec::new("a", "test/gone"), task("b")]);
    let Replanned { plan, problems } = again(&spec, &catalog(), &Needs::default(), &[]);
    assert_eq!(codes(&problems), [("/tasks/0/method", ErrorCode::MethodNotFound)]);
    let error = plan.tasks[0].method.as_ref().unwrap_err();
    assert_eq!(error.code, ErrorCode::MethodNotFound);
    assert_eq!(&*plan.tasks[0].capability().method, "unknown");
    assert!(plan.tasks[1].method.is_ok());
    assert_eq!(again(&spec, &catalog(), &Needs::default(), &[0]).problems, []);
}

/// `shop` in a version, whose one method takes an amount of at most `most`.
fn shop(version: &str, most: i64) -> ProtocolSpec {
    let amount = ParameterSpec::integer().maximum(most);
    ProtocolSpec::new("shop", version.parse().unwrap())
        .method(MethodSpec::new("charge").param("amount", amount))
}

fn catalog_of(specs: impl IntoIterator<Item = ProtocolSpec>) -> ProtocolCatalog {
    let mut catalog = ProtocolCatalog::new();
    catalog.register_all(specs).unwrap();
    catalog
}

fn accepted(spec: &WorkflowSpec, catalog: &ProtocolCatalog) -> Plan {
    Draft::new(spec.clone()).unwrap().plan(catalog, &PlanDefaults::default()).unwrap()
}

fn version_of(plan: &Plan) -> String {
    plan.tasks[0].capability().protocol.version().to_string()
}

/// A workflow keeps the version that it was checked against, also where there is a newer one by
/// now; where that is gone, a compatible one will do, and no other.
#[test]
fn a_stored_workflow_keeps_the_version_that_it_was_accepted_with() {
    let charge = |method: &str| workflow([TaskSpec::new("a", method).params(json!({"amount": 7}))]);
    let spec = charge("shop/charge");
    let needs = accepted(&spec, &catalog_of([shop("v1.0", 9), shop("v1.1", 9)])).needs;
    let at = |versions: &[&str]| {
        again(&spec, &catalog_of(versions.iter().map(|version| shop(version, 9))), &needs, &[])
    };
    assert_eq!(version_of(&at(&["v1.0", "v1.1", "v1.2"]).plan), "v1.1");
    assert_eq!(version_of(&at(&["v1.0", "v1.2", "v2.0"]).plan), "v1.2");
    for versions in [&["v1.0"][..], &["v2.0"]] {
        let wrong = at(versions).problems;
        assert_eq!(codes(&wrong), [("/tasks/0/method", ErrorCode::ProtocolVersionMismatch)]);
    }
    let exact = charge("shop/v1.1/charge");
    let needs = accepted(&exact, &catalog_of([shop("v1.1", 9)])).needs;
    assert_eq!(again(&exact, &catalog_of([shop("v1.2", 9)]), &needs, &[]).problems.len(), 1);
}

/// A process whose schema of a method is another one must not run what its schema refuses: the
/// workflow was accepted by a process that takes it.
#[test]
fn a_stored_workflow_whose_parameters_do_not_fit_here_is_not_for_this_process() {
    let spec = workflow([TaskSpec::new("a", "shop/charge").params(json!({"amount": 7}))]);
    let needs = accepted(&spec, &catalog_of([shop("v1.0", 9)])).needs;
    let at =
        |most, settled: &[usize]| again(&spec, &catalog_of([shop("v1.0", most)]), &needs, settled);
    assert_eq!(at(8, &[]).problems, []);
    assert_eq!(
        codes(&at(6, &[]).problems),
        [("/tasks/0/parameters/amount", ErrorCode::InvalidParams)]
    );
    assert_eq!(at(6, &[0]).problems, []);
}

/// What only other processes know is accepted for them, and told; a mistake in what is built in
/// is one everywhere.
#[test]
fn a_workflow_for_others_may_call_what_is_not_known_here() {
    let for_others = |method: &str| {
        let draft = Draft::new(workflow([TaskSpec::new("a", method)])).unwrap();
        draft.plan_for_others(&ProtocolCatalog::builtin(), &PlanDefaults::default())
    };
    for (method, needs) in [
        ("shop/charge", "shop (charge)"),
        ("shop/v1/charge", "shop/v1.0 (charge)"),
        ("shop/v1.2:charge", "shop/v1.2 (charge)"),
    ] {
        let (plan, unknown) = for_others(method).unwrap();
        assert_eq!(codes(&unknown), [("/tasks/0/method", ErrorCode::ProtocolNotFound)]);
        assert_eq!(plan.needs.to_string(), needs);
    }
    for method in ["charge", "python/execut", "shop/v1.x/charge", "echo/v9/echo"] {
        let refused = problems_of(for_others(method).unwrap_err());
        assert_eq!(refused.len(), 1, "{method}");
    }
}

/// A person who checks a file sees shape, methods and circles in one go; a self reference is a
/// circle of one.
#[test]
fn a_check_runs_all_steps() {
    let spec = workflow([
        task("a").timeout(Duration::ZERO),
        TaskSpec::new("b", "test/nothing"),
        task("c").params(json!({"own": "${c.x}"})),
    ]);
    assert_eq!(
        codes(&problems(&spec, &catalog())),
        [
            ("/tasks/0/timeout", ErrorCode::WorkflowValidationFailed),
            ("/tasks/1/method", ErrorCode::MethodNotFound),
            ("/tasks/2", ErrorCode::WorkflowCircularDependency),
        ]
    );
}

/// A file full of mistyped names is refused in a moment, with hints for the first of them.
#[test]
fn many_unknown_names_are_reported_quickly() {
    let spec =
        workflow((0..2_000).map(|n| task(&format!("task number {n}")).after("task numbr 7")));
    let begun = std::time::Instant::now();
    let problems = problems_of(Draft::new(spec).unwrap_err());
    assert_eq!(problems.len(), 2_000);
    assert_eq!(problems[0].help.as_deref(), Some("did you mean `task number 7`?"));
    assert!(begun.elapsed() < 10 * SECOND, "{:?}", begun.elapsed());
}

proptest! {
    /// Dependencies and references, by id or name, make exactly the edges that were meant.
    #[test]
    fn edges_are_those_that_were_meant(
        links in prop::collection::vec((0..8_usize, 0..8_usize, 0..3_usize), 0..20),
    ) {
        let mut tasks: Vec<TaskSpec> =
            (0..8).map(|n| task(&format!("t{n}")).named(format!("name of {n}"))).collect();
        let mut texts = vec![Vec::new(); 8];
        for &(from, to, kind) in &links {
            match kind {
                0 => tasks[from].dependencies.push(format!("t{to}")),
                1 => tasks[from].dependencies.push(format!("name of {to}")),
                _ => texts[from].push(format!("${{t{to}.x}}")),
            }
        }
        for (task, texts) in tasks.iter_mut().zip(texts) {
            task.parameters = Arc::new(json!(texts));
        }
        let mut edges = Draft::new(workflow(tasks)).unwrap().edges;
        let number = |at: usize| u32::try_from(at).unwrap();
        let mut meant: Vec<_> =
            links.iter().map(|(from, to, _)| (number(*from), number(*to))).collect();
        for list in [&mut edges, &mut meant] {
            list.sort_unstable();
            list.dedup();
        }
        prop_assert_eq!(edges, meant);
    }
}
