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
        ("{{if .Endpoint.Ports}}some{{else}}none{{end}}{{/* not told */}}", "none"),
        ("{{if .ID}}{{range .Endpoint.Ports}}x{{else}}{{.ID}}{{end}}{{end}}", "abc"),
        ("a  {{- .ID -}}  b", "aabcb"),
        ("a  {{- .ID }} b", "aabc b"),
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
        ("{{with .ID}}x{{end}}", "'{{with .ID}}' is not understood; there are {{.Field}},"),
        ("{{range service \"web\"}}x{{end}}", "is not understood"),
        ("{{else}}", "'else' without 'range' or 'if'"),
        ("{{if .ID}}{{else}}{{else}}{{end}}", "'else' without"),
        ("{{if .ID}}{{.Nmae}}{{end}}", "there is no field .Nmae"),
        ("{{Name}}", "'{{Name}}' is not understood"),
        ("{{json Name}}", "'Name' is no field: it needs a '.'"),
        ("{{.ID", "'{{' without '}}'"),
        ("{{end}}", "'end' without 'range' or 'if'"),
        ("{{range .Endpoint.Ports}}", "'range' without 'end'"),
        ("{{..}}", "'..' is no field"),
        ("{{}}", "is not understood"),
    ] {
        let found = fill(template).unwrap_err().to_string();
        assert!(found.contains(error), "{template}: {found}");
    }
}

#[test]
fn files_look_things_up_by_name() {
    let shape = Shape::of(json!({"properties": {"service": {"additionalProperties": {"type": "array",
        "items": {"properties": {"Address": {}, "Port": {}}}}}}}));
    let whole = json!({"service": {"web": [{"Address": "10.0.0.2", "Port": 80}, {"Address": "10.0.0.3", "Port": null}]}});
    let fill = |text: &str| {
        let template = Template::file(text, &["service"]).map_err(anyhow::Error::msg)?;
        template.check(&shape)?;
        template.render(&whole)
    };
    let text = "{{range service \"web\"}}server {{.Address}}{{if .Port}}:{{.Port}}{{end}};\n{{end}}";
    assert_eq!(fill(text).unwrap(), "server 10.0.0.2:80;\nserver 10.0.0.3;\n");
    assert_eq!(fill("{{range service \"shop\"}}x{{else}}down{{end}} \\n").unwrap(), "down \\n");
    for (text, error) in [
        ("{{range service \"web\"}}{{.Port}}{{end}}", "template: .Port has no value"),
        ("{{range service \"web\"}}{{.Prot}}{{end}}", "there is no field .Prot; there are .Address, .Port"),
        ("{{range services}}{{end}}", "is not understood"),
        ("{{range service web}}{{end}}", "is not understood"),
    ] {
        let found = fill(text).unwrap_err().to_string();
        assert!(found.contains(error), "{text}: {found}");
    }
}
