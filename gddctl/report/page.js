"use strict";
// What the page does beyond being read: commands can be copied, scenes flipped through. Without scripts everything is still there.
for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.previousElementSibling;
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(code); // not allowed to: the reader's own copy key works on the selection
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
}

for (const book of document.querySelectorAll(".flip")) {
  const sheets = [...book.querySelectorAll(".sheet")];
  const buttons = [...book.querySelectorAll("button[data-leaf]")];
  const errors = book.querySelector(".errors-on");
  const opacity = book.querySelector(".opacity");
  let scene = 0;
  const leavesOf = (sheet) => [...sheet.querySelectorAll(".leaf")];
  let leaf = Math.max(0, leavesOf(sheets[0]).findLastIndex((item) => item.dataset.kind === "answer"));

  function show() {
    const leaves = leavesOf(sheets[scene]);
    leaf = Math.min(leaf, leaves.length - 1);
    sheets.forEach((sheet, index) => sheet.classList.toggle("shown", index === scene));
    sheets.forEach((sheet) => leavesOf(sheet).forEach((item, index) => item.classList.toggle("shown", index === leaf)));
    buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(index === leaf)));
    const { kind, title, note } = leaves[leaf].dataset;
    errors.disabled = kind !== "answer";
    book.classList.toggle("errors", errors.checked && kind === "answer");
    book.style.setProperty("--opacity", opacity.value / 100);
    book.querySelector(".count").textContent = `${scene + 1} / ${sheets.length}`;
    const what = errors.checked && kind === "answer" ? `${title}, wrong pixels` : title;
    const words = [`Scene ${scene + 1} of ${sheets.length}`, sheets[scene].dataset.name, what, note];
    book.querySelector(".now").textContent = words.filter(Boolean).join(" · ");
  }
  const turn = (value, by, of) => (value + by + of) % of;
  function flip(by) { leaf = turn(leaf, by, leavesOf(sheets[scene]).length); show(); }
  function move(by) { scene = turn(scene, by, sheets.length); show(); }

  buttons.forEach((button, index) => button.addEventListener("click", () => { leaf = index; show(); }));
  for (const button of book.querySelectorAll("[data-step]")) button.addEventListener("click", () => flip(Number(button.dataset.step)));
  for (const button of book.querySelectorAll("[data-scene]")) button.addEventListener("click", () => move(Number(button.dataset.scene)));
  errors.addEventListener("change", show);
  opacity.addEventListener("input", show);
  const toggle = () => { if (!errors.disabled) { errors.checked = !errors.checked; show(); } };
  const keys = { ArrowRight: () => flip(1), ArrowLeft: () => flip(-1), n: () => move(1), p: () => move(-1), e: toggle };
  book.addEventListener("keydown", (event) => {
    if (event.target.type === "range" || event.ctrlKey || event.metaKey || event.altKey) return;
    const digit = Number(event.key) - 1;
    if (keys[event.key]) keys[event.key]();
    else if (digit >= 0 && digit < buttons.length) { leaf = digit; show(); }
    else return;
    event.preventDefault();
  });
  let start = null;
  book.addEventListener("touchstart", (event) => {
    start = event.target.closest(".leaves") && event.touches.length === 1 ? event.touches[0] : null;
  }, { passive: true });
  book.addEventListener("touchend", (event) => {
    if (start === null) return;
    const end = event.changedTouches[0];
    const [x, y] = [end.clientX - start.clientX, end.clientY - start.clientY];
    if (Math.abs(x) > 40 && Math.abs(x) > 2 * Math.abs(y)) flip(x < 0 ? 1 : -1);
    start = null;
  }, { passive: true });
  book.querySelector(".controls").hidden = false;
  book.classList.add("on");
  show();
}
