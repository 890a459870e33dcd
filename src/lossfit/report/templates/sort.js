// Sorts a table by the column whose heading is clicked. Everything can be read without it.
for (const head of document.querySelectorAll("table.sortable th")) {
  head.tabIndex = 0;
  const sort = () => {
    const body = head.closest("table").tBodies[0], column = head.cellIndex, down = head.ariaSort === "ascending";
    const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const order = (a, b) => (isNaN(a) || isNaN(b) ? String(a).localeCompare(b) : a - b) * (down ? -1 : 1);
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.ariaSort = down ? "descending" : "ascending";
    body.append(...[...body.rows].sort((a, b) => order(key(a), key(b))));
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
}
