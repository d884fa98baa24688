//! Panels and dashboards as Grafana's JSON.

use serde_json::{Value, json};

use super::variable;

/// Seconds of waiting in a second of time.
pub const LOST: &str = "suffix: s/s";

pub const GREEN: &str = "green";
pub const RED: &str = "red";
pub const ORANGE: &str = "orange";
pub const BLUE: &str = "blue";
pub const GREY: &str = "#8e8e8e";

/// A panel, of a width and height in Grafana's grid of 24 columns.
pub struct Panel {
    json: Value,
    width: u64,
    height: u64,
}

/// A row's title and its panels.
pub type Row = (&'static str, Vec<Panel>);

fn data_source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

impl Panel {
    fn new(kind: &str, title: &str, description: &str, unit: &str) -> Panel {
        let mut json = json!({
            "type": kind, "title": title, "datasource": data_source(),
            "fieldConfig": {"defaults": {"unit": unit}, "overrides": []}, "options": {}, "targets": [],
        });
        if !description.is_empty() {
            json["description"] = description.into();
        }
        Panel { json, width: 12, height: 8 }
    }

    pub fn graph(title: &str, description: &str, unit: &str) -> Panel {
        let mut panel = Panel::new("timeseries", title, description, unit);
        panel.json["fieldConfig"]["defaults"]["min"] = 0.into();
        panel.json["fieldConfig"]["defaults"]["custom"] =
            json!({"fillOpacity": 10, "lineWidth": 1, "showPoints": "never", "spanNulls": false});
        panel.json["options"] = json!({
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        });
        panel
    }

    pub fn stat(title: &str, description: &str, unit: &str) -> Panel {
        let mut panel = Panel::new("stat", title, description, unit).size(4, 4);
        panel.json["options"] = json!({
            "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "textMode": "value",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
        });
        panel.thresholds(&[(None, "text")])
    }

    /// Of instant queries.
    pub fn bars(title: &str, description: &str, unit: &str) -> Panel {
        let mut panel = Panel::new("bargauge", title, description, unit);
        panel.json["fieldConfig"]["defaults"]["min"] = 0.into();
        panel.json["options"] = json!({
            "displayMode": "gradient", "orientation": "horizontal", "showUnfilled": true, "valueMode": "color",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
        });
        panel.thresholds(&[(None, ORANGE)])
    }

    pub fn heat_map(title: &str, description: &str) -> Panel {
        let mut panel = Panel::new("heatmap", title, description, "short");
        panel.json["fieldConfig"] = json!({"defaults": {}, "overrides": []});
        panel.json["options"] = json!({
            "calculate": false, "cellGap": 1, "showValue": "never",
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange", "reverse": false, "scale": "exponential"},
            "cellValues": {"unit": "suffix: /s"},
            "yAxis": {"unit": "s", "axisPlacement": "left", "reverse": false},
            "rowsFrame": {"layout": "auto"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": true},
            "tooltip": {"mode": "single", "yHistogram": true, "showColorScale": true},
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
        });
        panel
    }

    pub fn table(title: &str, description: &str, unit: &str) -> Panel {
        let mut panel = Panel::new("table", title, description, unit);
        panel.json["options"] = json!({"showHeader": true, "cellHeight": "sm"});
        panel.json["fieldConfig"]["defaults"]["custom"] =
            json!({"align": "auto", "cellOptions": {"type": "auto"}});
        panel
    }

    /// States over time: one line each.
    pub fn states(title: &str, description: &str) -> Panel {
        let mut panel = Panel::new("state-timeline", title, description, "short");
        panel.json["options"] = json!({
            "mergeValues": true, "showValue": "never", "rowHeight": 0.8,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": false, "calcs": []},
            "tooltip": {"mode": "single", "sort": "none"},
        });
        panel.json["fieldConfig"]["defaults"]["custom"] = json!({"fillOpacity": 80, "lineWidth": 0});
        panel.json["fieldConfig"]["defaults"]["mappings"] = json!([{"type": "value", "options": {
            "0": {"text": "no", "color": "transparent"}, "1": {"text": "whispers", "color": RED},
        }}]);
        panel
    }

    pub fn size(mut self, width: u64, height: u64) -> Panel {
        (self.width, self.height) = (width, height);
        self
    }

    fn target(mut self, expr: &str, more: Value) -> Panel {
        let Some(targets) = self.json["targets"].as_array_mut() else { return self };
        let letter = char::from(b'A' + u8::try_from(targets.len()).unwrap_or(25));
        let mut target = json!({"refId": letter.to_string(), "datasource": data_source(), "expr": expr, "editorMode": "code"});
        merge(&mut target, more);
        targets.push(target);
        self
    }

    /// Over time.
    pub fn query(self, expr: &str, legend: &str) -> Panel {
        let format = if self.json["type"] == "heatmap" { "heatmap" } else { "time_series" };
        self.target(expr, json!({"legendFormat": legend, "range": true, "format": format}))
    }

    /// At the end of the time shown.
    pub fn now(self, expr: &str, legend: &str) -> Panel {
        self.target(expr, json!({"legendFormat": legend, "instant": true, "format": "time_series"}))
    }

    /// The rows of a table, at the end of the time shown.
    pub fn rows(self, expr: &str) -> Panel {
        self.target(expr, json!({"instant": true, "format": "table"}))
    }

    pub fn stacked(mut self) -> Panel {
        let custom = &mut self.json["fieldConfig"]["defaults"]["custom"];
        custom["stacking"] = json!({"mode": "normal", "group": "A"});
        custom["fillOpacity"] = 40.into();
        self
    }

    /// A share: 0 to 1.
    pub fn share(mut self) -> Panel {
        self.json["fieldConfig"]["defaults"]["max"] = 1.into();
        self
    }

    pub fn thresholds(mut self, steps: &[(Option<f64>, &str)]) -> Panel {
        let steps: Vec<_> =
            steps.iter().map(|(value, color)| json!({"value": value, "color": color})).collect();
        let defaults = &mut self.json["fieldConfig"]["defaults"];
        defaults["thresholds"] = json!({"mode": "absolute", "steps": steps});
        defaults["color"] = json!({"mode": "thresholds"});
        self
    }

    /// Lines across a graph.
    pub fn lines(mut self, at: &[(f64, &str)]) -> Panel {
        let lines = at.iter().map(|(value, color)| json!({"value": value, "color": color}));
        let steps: Vec<_> =
            std::iter::once(json!({"value": null, "color": "transparent"})).chain(lines).collect();
        let defaults = &mut self.json["fieldConfig"]["defaults"];
        defaults["thresholds"] = json!({"mode": "absolute", "steps": steps});
        defaults["custom"]["thresholdsStyle"] = json!({"mode": "line"});
        self
    }

    fn set(mut self, matcher: &str, of: &str, properties: Value) -> Panel {
        if let Some(overrides) = self.json["fieldConfig"]["overrides"].as_array_mut() {
            overrides.push(json!({"matcher": {"id": matcher, "options": of}, "properties": properties}));
        }
        self
    }

    /// The color of a series.
    pub fn color(self, series: &str, color: &str) -> Panel {
        self.set("byName", series, json!([{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}]))
    }

    /// Columns that lead to another dashboard.
    pub fn lead(self, column: &str, title: &str, url: &str) -> Panel {
        self.set("byName", column, json!([{"id": "links", "value": [{"title": title, "url": url}]}]))
    }

    /// Each value leads to another dashboard.
    pub fn link(mut self, title: &str, url: &str) -> Panel {
        self.json["fieldConfig"]["defaults"]["links"] = json!([{"title": title, "url": url}]);
        self
    }

    /// The queries side by side in one table: labels first, then each query's value under its name. Sorted by the first.
    pub fn joined(mut self, labels: &[(&str, &str)], values: &[&str]) -> Panel {
        let mut renamed = serde_json::Map::new();
        let mut order = serde_json::Map::new();
        for (i, (label, column)) in labels.iter().enumerate() {
            renamed.insert((*label).into(), (*column).into());
            order.insert((*label).into(), i.into());
        }
        for (i, value) in values.iter().enumerate() {
            // One query's value has no letter.
            let field = if values.len() == 1 {
                "Value".into()
            } else {
                format!("Value #{}", char::from(b'A' + i as u8))
            };
            order.insert(field.clone(), (labels.len() + i).into());
            renamed.insert(field, (*value).into());
        }
        self.json["transformations"] = json!([
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": {"Time": true}, "indexByName": order, "renameByName": renamed}},
            {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": values[0], "desc": true}]}},
        ]);
        self
    }

    /// Labels alone: what the value is everybody knows.
    pub fn listed(mut self, labels: &[(&str, &str)], sort: &str) -> Panel {
        self = self.joined(labels, &["Value"]);
        let steps = &mut self.json["transformations"];
        steps[1]["options"]["excludeByName"]["Value"] = true.into();
        steps[2]["options"]["sort"][0]["field"] = sort.into();
        self
    }

    /// One label's values as rows, another's as columns, each cell in a color by its size.
    pub fn matrix(mut self, row: &str, column: &str) -> Panel {
        self.json["transformations"] = json!([{"id": "groupingToMatrix", "options": {
            "columnField": column, "rowField": row, "valueField": "Value", "emptyValue": "null",
        }}]);
        let defaults = &mut self.json["fieldConfig"]["defaults"];
        defaults["custom"]["cellOptions"] = json!({"type": "color-background", "mode": "basic"});
        defaults["color"] = json!({"mode": "continuous-YlRd"});
        self.set("byName", &format!("{row}\\{column}"), json!([{"id": "custom.width", "value": 260}]))
    }

    /// What is rare has points this far apart at least.
    pub fn every(mut self, interval: &str) -> Panel {
        self.json["interval"] = interval.into();
        self
    }
}

fn merge(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}

/// A dashboard.
pub struct Dashboard {
    pub uid: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    pub variables: Vec<Value>,
    /// Beside those to the other dashboards.
    pub links: Vec<Value>,
    pub rows: Vec<Row>,
}

impl Dashboard {
    /// The file's text.
    pub fn text(self) -> anyhow::Result<String> {
        let mut panels = Vec::new();
        let (mut y, mut id) = (0, 0);
        for (title, row) in self.rows {
            id += 1;
            panels.push(json!({"type": "row", "id": id, "title": title, "collapsed": false, "panels": [],
                "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}}));
            y += 1;
            let (mut x, mut tallest) = (0, 0);
            for mut panel in row {
                if x + panel.width > 24 {
                    y += tallest;
                    (x, tallest) = (0, 0);
                }
                id += 1;
                panel.json["id"] = id.into();
                panel.json["gridPos"] = json!({"x": x, "y": y, "w": panel.width, "h": panel.height});
                x += panel.width;
                tallest = tallest.max(panel.height);
                panels.push(panel.json);
            }
            y += tallest;
        }
        let mut links = vec![json!({
            "type": "dashboards", "title": "Kernel Gossip", "tags": ["kernel-gossip"], "asDropdown": true, "icon": "external link",
            "includeVars": true, "keepTime": true, "targetBlank": false, "tooltip": "", "url": "",
        })];
        links.extend(self.links);
        let variables = [vec![variable::data_source()], self.variables].concat();
        let dashboard = json!({
            "uid": self.uid, "title": self.title, "description": self.description, "tags": ["kernel-gossip"],
            "schemaVersion": 42, "version": 1, "editable": true, "timezone": "browser",
            // A shared crosshair.
            "graphTooltip": 1, "refresh": "30s", "time": {"from": "now-1h", "to": "now"},
            "annotations": {"list": []}, "links": links, "panels": panels,
            "templating": {"list": variables},
        });
        Ok(serde_json::to_string_pretty(&dashboard)? + "\n")
    }
}
