use serde_json::json;

use super::*;

fn service() -> Value {
    json!({
        "ID": "abc", "Spec": {"Name": "web", "Labels": {"tier": "front"}},
        "Endpoint": {"Spec": {"Mode": "vip"}, "VirtualIPs": [{"NetworkID": "n1", "Addr": "10.0.0.5/16"},
            {"NetworkID": "n2", "Addr": "10.1.0.5/16"}]},
        "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": 3}
    })
}

fn fill(text: &str) -> anyhow::Result<String> {
    let template: Template = text.parse().map_err(anyhow::Error::msg)?;
    template.check(&Shape::schema("Service"))?;
    template.render(&service())
}

#[test]
fn fields_json_and_range() {
    for (template, text) in [
        ("{{.Spec.Name}}: {{.ServiceStatus.RunningTasks}}", "web: 2"),
        ("{{ json .Endpoint.Spec }}", r#"{"Mode":"vip"}"#),
        ("{{json .Endpoint.Ports}}", "null"),
        ("{{.Endpoint.Ports}}", ""),
        ("{{.Id}}", "abc"),
        ("{{.Spec.Labels.tier}}-{{.Spec.Labels.other}}", "front-"),
        ("{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}", "10.0.0.5/16 10.1.0.5/16 "),
        (r"{{.ID}}\t{{.ID}}", "abc\tabc"),
    ] {
        assert_eq!(fill(template).unwrap(), text, "{template}");
    }
    assert_eq!(serde_json::from_str::<Value>(&fill("{{json .}}").unwrap()).unwrap(), service());
}

#[test]
fn what_is_not_understood_is_one_clear_error() {
    for (template, error) in [
        ("{{.Nmae}}", "template: there is no field .Nmae; there are .ID,"),
        ("{{.Spec.Nmae}}", "template: there is no field .Nmae of .Spec; there are .Name,"),
        (
            "{{range .Endpoint.VirtualIPs}}{{.IP}}{{end}}",
            "there is no field .IP; there are .NetworkID, .Addr",
        ),
        ("{{.ID.x}}", "template: .ID has no fields"),
        ("{{if .ID}}x{{end}}", "'{{if .ID}}' is not understood; there are {{.Field}},"),
        ("{{Name}}", "'{{Name}}' is not understood"),
        ("{{json Name}}", "'Name' is no field: it needs a '.'"),
        ("{{.ID", "'{{' without '}}'"),
        ("{{end}}", "'end' without 'range'"),
        ("{{range .Endpoint.Ports}}", "'range' without 'end'"),
        ("{{..}}", "'..' is no field"),
        ("{{}}", "is not understood"),
    ] {
        let found = fill(template).unwrap_err().to_string();
        assert!(found.contains(error), "{template}: {found}");
    }
}
