// Tables of class "sortable": a click on a heading sorts by that column, a second one the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    heading.style.cursor = "pointer";
    heading.addEventListener("click", () => {
      const sign = heading.dataset.sorted === "up" ? -1 : 1;
      for (const other of table.tHead.rows[0].cells) delete other.dataset.sorted;
      heading.dataset.sorted = sign > 0 ? "up" : "down";
      const text = (row) => row.cells[column].textContent;
      [...body.rows]
        .sort((a, b) => sign * text(a).localeCompare(text(b), "en", { numeric: true }))
        .forEach((row) => body.append(row));
    });
  });
}
