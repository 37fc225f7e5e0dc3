"use strict";
document.documentElement.dataset.script = "on";
for (const tree of document.querySelectorAll(".flame")) {
  const items = (list) => [...list.children].filter((item) => item.matches("li:not(.off)"));
  const below = (item) => item.querySelector(":scope > ul");
  const above = (item) => item.parentElement.closest("li");
  const show = (item) => {
    for (const changed of tree.querySelectorAll(".full, .off")) changed.classList.remove("full", "off");
    for (let step = item; step; step = above(step)) {
      step.classList.add("full");
      for (const other of step.parentElement.children) if (other !== step) other.classList.add("off");
    }
  };
  const focus = (item) => {
    if (!item) return;
    for (const old of tree.querySelectorAll('[tabindex="0"]')) old.tabIndex = -1;
    item.tabIndex = 0;
    item.focus();
  };
  tree.addEventListener("click", (event) => {
    const item = event.target.closest("li");
    if (!item) return;
    show(item.classList.contains("full") ? above(item) : item);
    focus(item);
  });
  tree.addEventListener("keydown", (event) => {
    const item = event.target.closest("li");
    if (!item) return;
    const siblings = items(item.parentElement);
    const place = siblings.indexOf(item);
    const first = below(item) && items(below(item))[0];
    const moves = {
      ArrowDown: () => focus(first), ArrowUp: () => focus(above(item)),
      ArrowLeft: () => focus(siblings[place - 1]), ArrowRight: () => focus(siblings[place + 1]),
      Home: () => focus(items(tree)[0]), Enter: () => show(item), " ": () => show(item), Escape: () => show(null),
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    moves[event.key]();
  });
}
