// Above a leaderboard two menus: which of its tables are shown, and of a column of theirs which rows.
// Without this script the page has all of them.
document.addEventListener("DOMContentLoaded", () => {
  const groups = [...document.querySelectorAll("h2")]
    .map((heading) => ({ name: heading.firstChild.textContent, section: heading.parentElement }))
    .filter(({ section }) => section.querySelector(":scope > .table-wrapper, :scope > table"));
  const titles = groups.length ? [...groups[0].section.querySelectorAll("th")] : [];
  const place = titles.findIndex((title) => /^(learner|benchmark)$/.test(title.textContent.trim()));
  if (groups.length < 3 || place < 0) return;

  const column = titles[place].textContent.trim();
  const rows = groups.flatMap(({ name, section }) => {
    let value = ""; // a record's further rows leave it out
    return [...section.querySelectorAll("tbody tr")].map((row) => {
      value = row.cells[place].textContent.trim() || value;
      return { row, group: name, value };
    });
  });
  const wanted = { group: "", value: "" };

  function show() {
    for (const { row, group, value } of rows) {
      row.hidden =
        (wanted.group && group !== wanted.group) || (wanted.value && value !== wanted.value);
    }
    for (const { name, section } of groups) {
      section.hidden = rows.every(({ row, group }) => group !== name || row.hidden);
    }
  }

  function menu(label, key) {
    const values = [...new Set(rows.map((each) => each[key]))];
    values.sort((one, other) => one.localeCompare(other));
    const select = document.createElement("select");
    select.add(new Option(`every ${label}`, ""));
    values.forEach((value) => select.add(new Option(value, value)));
    select.setAttribute("aria-label", label);
    select.addEventListener("change", () => {
      wanted[key] = select.value;
      show();
    });
    return select;
  }

  const bar = document.createElement("p");
  bar.className = "leaderboard";
  bar.append(menu(column === "learner" ? "benchmark" : "learner", "group"), " ");
  bar.append(menu(column, "value"));
  groups[0].section.before(bar);
});
