//! Settings: layers, variables, and every kind of mistake told at once.

use std::{fs, num::NonZeroU64, time::Duration};

use gleitzeit::settings::{
    Amount, Durability, ProviderKind, Settings, SettingsError, SettingsProblem, Sources,
};

fn problems(error: SettingsError) -> Vec<SettingsProblem> {
    error.problems
}

fn refused(text: &str) -> Vec<SettingsProblem> {
    problems(Settings::from_toml(text).expect_err("refused"))
}

fn only(text: &str) -> SettingsProblem {
    let mut found = refused(text);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// The file that is compiled in sets every key, and nothing unknown.
#[test]
fn defaults_are_complete() {
    let settings = Settings::default();
    assert_eq!(settings.engine.max_concurrent_tasks.get(), 64);
    assert_eq!(settings.engine.default_timeout, Duration::from_mins(5));
    assert_eq!(settings.storage.url.to_string(), "sqlite:gleitzeit.db");
    assert_eq!(settings.storage.retention(), Some(Duration::from_hours(30 * 24)));
    assert_eq!(settings.storage.max_bytes(), None);
    let limited = Settings::from_toml("storage.max_size_mb = 3").unwrap();
    assert_eq!(limited.storage.max_bytes(), Some(3 << 20));
    assert_eq!(settings.resources.cpu_cores, Amount::Detect);
    let kinds: Vec<_> = settings.enabled_providers().map(|(_, it)| &*it.kind).collect();
    assert_eq!(kinds, ["echo", "ollama", "python"]);
    assert!(settings.engine.provider_threads() >= 1);
}

/// What `gleitzeit config` prints is a settings file itself.
#[test]
fn printed_settings_can_be_read_again() {
    let settings = Settings::default();
    let text = toml::to_string(&settings).unwrap();
    let again = Settings::from_toml(&text).unwrap();
    assert_eq!(format!("{settings:?}"), format!("{again:?}"));
}

/// A later layer wins key by key, and leaves the rest alone.
#[test]
fn layers_override_key_by_key() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("default.toml", "[engine]\nmax_concurrent_tasks = 1\nprovider_wait = 1\nseed = 1");
    write("test.toml", "[engine]\nprovider_wait = 2\nseed = 2");
    let settings = Sources::nothing()
        .with_environment(folder.path(), "test")
        .with_variables([("GLEITZEIT__ENGINE__SEED", "3"), ("OTHER", "x")])
        .load()
        .unwrap();
    assert_eq!(settings.engine.max_concurrent_tasks, NonZeroU64::MIN);
    assert_eq!(settings.engine.provider_wait_timeout, Duration::from_secs(2));
    assert_eq!(settings.engine.seed, Some(3));
    assert_eq!(settings.engine.max_queued_tasks.get(), 1_000_000);
}

/// One provider is changed without writing the others again.
#[test]
fn a_provider_is_changed_by_its_id() {
    let settings = Settings::from_toml("[providers.ollama]\nenabled = false").unwrap();
    let ids: Vec<_> = settings.enabled_providers().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["echo", "python"]);
}

/// What a provider's kind wants is known only when it reads its settings: a key or the name of a
/// model that looks like something else arrives as it is written.
#[cfg(feature = "ollama")]
#[test]
fn variables_of_a_provider_take_the_type_that_its_kind_wants() {
    let setting = |key: &str, text: &str| {
        let name = format!("GLEITZEIT__PROVIDERS__OLLAMA__CONFIG__{key}");
        let settings = Sources::nothing().with_variables([(name, text)]).load();
        let specs = settings.unwrap_or_else(|error| panic!("{text}: {error}")).provider_specs();
        let specs = specs.unwrap();
        specs.into_iter().find(|spec| spec.id.as_str() == "ollama").unwrap().config
    };
    for text in ["7", "1.10", "1e5", "true", "null", "12#34", "2024-01-01", "[1]", "{a=1}", "0x1F"]
    {
        assert_eq!(setting("DEFAULT_MODEL", text)["default_model"], text);
        assert_eq!(setting("API_KEY", text)["api_key"], "***", "{text}");
        assert_eq!(setting("HEADERS__X_TOKEN", text)["headers"]["x_token"], "***", "{text}");
    }
    assert_eq!(setting("MAX_CONNECTIONS", "7")["max_connections"], 7);
    let wrong = Sources::nothing()
        .with_variables([("GLEITZEIT__PROVIDERS__OLLAMA__CONFIG__MAX_CONNECTIONS", "1.5")]);
    let error = wrong.load().unwrap_err().to_string();
    assert!(error.contains("max_connections") && error.contains("MAX_CONNECTIONS"), "{error}");
}

/// A variable has no types: what looks like a number is one only where a number is wanted.
#[test]
fn variables_take_the_type_of_their_key() {
    let settings = Sources::nothing()
        .with_variables([
            ("GLEITZEIT__ENGINE__MAX_CONCURRENT_TASKS", "8"),
            ("GLEITZEIT__ENGINE__ENV_ALLOWED", r#"["HOME", "LANG"]"#),
            ("GLEITZEIT__STORAGE__URL", "memory"),
            ("GLEITZEIT__STORAGE__DURABILITY", "normal"),
            ("GLEITZEIT__BALANCING__DEFAULT", "7"),
            ("GLEITZEIT__PROVIDERS__OLLAMA__ENABLED", "false"),
            ("GLEITZEIT__RESOURCES__CPU_CORES", "1.5"),
        ])
        .load()
        .unwrap();
    assert_eq!(settings.engine.max_concurrent_tasks.get(), 8);
    assert_eq!(settings.engine.env_allowed, ["HOME", "LANG"]);
    assert!(settings.storage.url.is_memory());
    assert_eq!(settings.storage.durability, Durability::Normal);
    assert_eq!(settings.balancing.default, "7");
    assert_eq!(settings.resources.totals(1).cpu_millicores, 1500);
    assert_eq!(settings.enabled_providers().count(), 2);
}

/// A typing error must not silently leave the default in force.
#[test]
fn an_unknown_key_is_refused_with_its_position_and_the_nearest_known_one() {
    let problem = only("[engine]\nseed = 1\nmax_concurrent_task = 8");
    assert_eq!(problem.path, "engine.max_concurrent_task");
    assert_eq!(problem.origin.as_deref(), Some("settings:3:1"));
    assert_eq!(problem.help.as_deref(), Some("did you mean `max_concurrent_tasks`?"));

    let problem = only("[storag]\nurl = \"memory\"");
    assert_eq!(problem.path, "storag");
    assert_eq!(problem.help.as_deref(), Some("did you mean `storage`?"));

    let error =
        Sources::nothing().with_variables([("GLEITZEIT__ENGINE__SED", "1")]).load().unwrap_err();
    let problem = &problems(error)[0];
    assert_eq!(problem.path, "engine.sed");
    assert_eq!(problem.origin.as_deref(), Some("GLEITZEIT__ENGINE__SED"));
    assert_eq!(problem.help.as_deref(), Some("did you mean `seed`?"));
}

/// Key, value, expectation and place, in words.
#[test]
fn a_wrong_type_is_reported_with_value_and_expectation() {
    let problem = only("[engine]\nmax_concurrent_tasks = \"many\"");
    assert_eq!(
        problem.to_string(),
        "settings:2:1: engine.max_concurrent_tasks: found string \"many\", \
         expected a whole number of 1 or more"
    );
    let problem = only("[storage]\ndurability = \"ful\"");
    assert_eq!(
        problem.to_string(),
        "settings:2:1: storage.durability: found `ful`, expected one of full, normal \
         (did you mean `full`?)"
    );
    let problem = only("[storage]\nurl = \"mysql://host/db\"");
    assert!(problem.message.contains("`mysql://host/db` names no store"), "{problem}");
    let problem = only("[resources]\nmemory_mb = -1");
    assert!(problem.message.contains("expected a number of 0 or more"), "{problem}");
}

/// A user mends a file once, not once per mistake.
#[test]
fn all_problems_are_reported_at_once() {
    let found = refused(
        r#"
        [engine]
        max_queued_tasks = 0
        default_timeout = "soon"
        nonsense = 1
        env_allowed = ["A", 7]
        [providers.mine]
        weight = 2
        [logging]
        format = "xml"
        "#,
    );
    let mut paths: Vec<_> = found.iter().map(|problem| problem.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "engine.default_timeout",
            "engine.env_allowed.1",
            "engine.max_queued_tasks",
            "engine.nonsense",
            "logging.format",
            "providers.mine",
        ]
    );
    assert!(found.iter().all(|problem| problem.origin.is_some()), "{found:?}");
}

/// Bounds and what must fit together, with the same care as types.
#[test]
fn values_out_of_their_bounds_are_refused_with_their_position() {
    let found = refused(
        r#"
        [engine]
        default_timeout = 0
        [providers.python]
        weight = -1.0
        [providers.echo.supervision]
        backoff_min = 20
        [balancing.protocols]
        "no protocol" = "peak_ewma"
        [security]
        sandbox_minimum = "docker"
        "#,
    );
    let paths: Vec<_> = found.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "engine.default_timeout",
            "providers.echo.supervision.backoff_min",
            "balancing.protocols.\"no protocol\"",
            "security.sandbox",
            "providers.python.weight",
        ]
    );
    assert_eq!(found[2].origin.as_deref(), Some("settings:9:9"));
    assert!(found[3].origin.as_deref().unwrap().starts_with("config/default.toml:"));
}

/// What cannot be read at all is reported with its line; what is not there, with its path.
#[test]
fn unreadable_files_are_named() {
    let problem = only("[engine\nseed = 1");
    assert!(problem.origin.as_deref().unwrap().starts_with("settings:1:"), "{problem}");

    let sources = Sources::nothing().with_environment("no/such/folder", "nowhere");
    let problem = problems(sources.load().unwrap_err()).remove(0);
    assert!(problem.to_string().starts_with("no/such/folder/nowhere.toml: cannot be read"));
    assert_eq!(problem.help.as_deref(), Some("GLEITZEIT_ENV is `nowhere`"));

    let sources = Sources::nothing().with_file("missing.toml");
    assert_eq!(problems(sources.load().unwrap_err())[0].origin.as_deref(), Some("missing.toml"));
}

/// Settings are printed, logged and attached to bug reports.
#[test]
fn secrets_are_hidden_wherever_settings_are_printed() {
    let settings = Settings::from_toml(
        r#"
        storage.url = "postgres://me:geheim@host/db"
        [providers.ollama.config]
        api_key = "geheim"
        headers = { X-Friend = "geheim" }
        "#,
    )
    .unwrap();
    for printed in [
        format!("{settings:?}"),
        toml::to_string(&settings).unwrap(),
        serde_json::to_string(&settings).unwrap(),
    ] {
        assert!(!printed.contains("geheim"), "{printed}");
        assert!(printed.contains("***"), "{printed}");
    }
    assert!(settings.storage.url.expose().contains("geheim"));
    let config = &settings.providers["ollama"].config.0;
    assert_eq!(config["api_key"], "geheim", "the provider gets it");
}

/// Each level overrides only what it says.
#[test]
fn supervision_is_inherited_field_by_field() {
    let settings = Settings::from_toml(
        r"
        [supervision]
        restarts_max = 7
        [providers.ollama.supervision]
        health_interval = 2.5
        ",
    )
    .unwrap();
    let ollama = settings.supervision_of(&settings.providers["ollama"]);
    assert_eq!(ollama.health_interval, Duration::from_millis(2500));
    assert_eq!(ollama.restarts_max, 7);
    let echo = settings.supervision_of(&settings.providers["echo"]);
    assert_eq!(echo.health_interval, Duration::from_secs(30));
}

/// An exact version is meant before a name, a name before the default.
#[test]
fn strategies_are_chosen_by_protocol() {
    let settings = Settings::from_toml(
        "[balancing.protocols]\n\"llm/v1\" = \"peak_ewma\"\nllm = \"weighted_random\"",
    )
    .unwrap();
    let strategy = |protocol: &str| settings.balancing.strategy(&protocol.parse().unwrap());
    assert_eq!(strategy("llm/v1.0"), "peak_ewma");
    assert_eq!(strategy("llm/v2.0"), "weighted_random");
    assert_eq!(strategy("python/v1.0"), "round_robin");
}

/// The files that come with the program are read by it.
#[test]
fn the_shipped_environments_are_valid() {
    for environment in ["development", "production"] {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
        let sources = Sources::nothing().with_environment(directory, environment);
        sources.load().unwrap_or_else(|error| panic!("{environment}: {error}"));
    }
}

/// A mistake in what only a provider's kind understands is reported when settings are read, not when
/// the first task fails.
#[test]
fn the_settings_of_a_kind_are_checked_as_strictly() {
    let found = refused(
        r#"
        [providers.ollama.config]
        base_ulr = "http://host:1"
        timeout = "long"
        [providers.python.config]
        memory_mb = 1
        [providers.echo.config]
        loud = true
        "#,
    );
    let messages: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(messages.len(), 4, "{messages:#?}");
    assert!(messages[0].starts_with("settings:8:9: providers.echo.config.loud: no such setting"));
    assert!(
        messages[1].starts_with("settings:3:9: providers.ollama.config.base_ulr: "),
        "{}",
        messages[1]
    );
    assert!(messages[1].ends_with("(did you mean `base_url`?)"), "{}", messages[1]);
    assert!(
        messages[2].starts_with("settings:4:9: providers.ollama.config.timeout: "),
        "{}",
        messages[2]
    );
    assert!(messages[3].starts_with("settings:6:9: providers.python.config.memory_mb: 1 is less"));
}

/// Providers come out as their settings say, with what holds for all of them added.
#[test]
fn providers_are_built_from_their_settings() {
    let settings = Settings::from_toml(
        r#"
        [supervision]
        restarts_max = 9
        [security]
        file_roots = ["/data"]
        [providers.python]
        max_concurrent = 3
        weight = 2
        [providers.second]
        kind = "ollama"
        config = { base_url = "http://host:1" }
        supervision = { health_timeout = 1 }
        [providers.echo]
        enabled = false
        "#,
    )
    .unwrap();
    let specs = settings.provider_specs().unwrap();
    let ids: Vec<_> = specs.iter().map(|spec| spec.id.as_str()).collect();
    assert_eq!(ids, ["ollama", "python", "second"]);
    let [_, python, second] = &specs[..] else { panic!("{ids:?}") };
    assert_eq!((python.max_concurrent, &*python.kind), (Some(3), "python"));
    assert!((python.weight - 2.0).abs() < f64::EPSILON);
    assert_eq!(python.config["policy"], "off", "a jail is the boundary");
    assert_eq!(python.config["file_roots"][0], "/data");
    assert_eq!(second.config["base_url"], "http://host:1");
    assert_eq!(second.config["file_roots"][0], "/data");
    assert_eq!(second.supervision.health_timeout, Duration::from_secs(1));
    assert_eq!(second.supervision.restarts_max, 9);
}

/// Where no jail keeps code in, the policy warns of what it might do; what is set counts anywhere,
/// also by the older name.
#[test]
fn the_policy_follows_the_sandbox_unless_it_is_set() {
    let policy = |security: &str| {
        let text = format!("[security]\n{security}\n[providers.python]\nkind = \"python\"");
        let specs = Settings::from_toml(&text).unwrap().provider_specs().unwrap();
        let python = specs.into_iter().find(|spec| &*spec.kind == "python").unwrap();
        python.config["policy"].as_str().unwrap().to_owned()
    };
    assert_eq!(policy(""), "off");
    assert_eq!(policy("policy = \"seed\""), "basic");
    assert_eq!(policy("policy = \"strict\""), "strict");
    let unjailed = "sandbox = \"none\"\nallow_unsandboxed = true\n";
    assert_eq!(policy(unjailed), "basic");
    assert_eq!(policy(&format!("{unjailed}policy = \"off\"")), "off");
}

/// Also a mistake about a secret must not show it.
#[test]
fn problems_do_not_show_secrets() {
    let found = refused(
        r#"
        [providers.ollama.config]
        headers = "Bearer geheim"
        api_key = ["geheim"]
        [storage]
        url = "mysql://me:geheim@host/db"
        "#,
    );
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(!format!("{found:?}").contains("geheim"), "{found:#?}");
}

/// A settings file of an older release still counts; a warning names the new key and the place.
#[test]
fn an_old_name_of_a_key_counts_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("old.toml");
    fs::write(&file, "[storage]\nlease = 20\n").unwrap();
    let settings = Sources::nothing()
        .with_file(&file)
        .with_variables([("GLEITZEIT__ENGINE__PROVIDER_WAIT", "2")])
        .load()
        .unwrap();
    assert_eq!(settings.storage.lease_ttl, Duration::from_secs(20));
    assert_eq!(settings.engine.provider_wait_timeout, Duration::from_secs(2));
    let warnings: Vec<String> = settings.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("GLEITZEIT__ENGINE__PROVIDER_WAIT: "), "{warnings:?}");
    assert!(warnings[0].contains("`engine.provider_wait_timeout`"), "{warnings:?}");
    assert!(warnings[1].contains("old.toml:2:1: storage.lease: "), "{warnings:?}");
    assert!(Settings::default().warnings.is_empty());
}

/// What is wrong with a value is told at the key that the person wrote.
#[test]
fn a_wrong_value_of_an_old_key_is_found_where_it_was_written() {
    let error = Settings::from_toml("[storage]\nlease = 0.1").unwrap_err().to_string();
    assert!(error.contains("settings:2:1: storage.lease_ttl: "), "{error}");
}

/// A host adds a kind of its own, which settings name like any other.
#[test]
fn a_host_adds_a_kind_of_provider() {
    let text = "[providers.mine]\nkind = \"mine\"\nconfig = { size = 3 }";
    let error = Settings::from_toml(text).unwrap_err().to_string();
    assert!(error.contains("providers.mine.kind: found `mine`"), "{error}");
    let kind = ProviderKind::new("mine", |request| {
        assert_eq!(request.config["size"], 3);
        Ok(gleitzeit::providers::echo::spec(request.id.clone()))
    });
    let sources = Sources::nothing().with_provider_kind(kind).with_text("settings", text);
    let specs = sources.load().unwrap().provider_specs().unwrap();
    assert!(specs.iter().any(|spec| spec.id.as_str() == "mine"));
}

/// A variable with one underscore sets nothing, which nobody would notice.
#[test]
fn a_variable_with_one_underscore_is_named_in_a_warning() {
    let variables = [
        ("GLEITZEIT_ENGINE_SEED", "1"),
        ("GLEITZEIT_STORAGE__URL", "memory"),
        ("GLEITZEIT_ENV", "x"),
        ("GLEITZEIT_STORE", "memory"),
        ("GLEITZEIT__ENGINE__SEED", "2"),
    ];
    let settings = Sources::nothing().with_variables(variables).load().unwrap();
    assert_eq!(settings.engine.seed, Some(2));
    let warnings: Vec<String> = settings.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("`GLEITZEIT_ENGINE_SEED` sets nothing"), "{warnings:?}");
    assert!(warnings[0].contains("GLEITZEIT__ENGINE__SEED"), "{warnings:?}");
}
