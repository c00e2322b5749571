// Which heading of the chats a time belongs under, in the reader's own time zone. Pure.

function startOfDay(date, daysAgo = 0) {
  return new Date(date.getFullYear(), date.getMonth(), date.getDate() - daysAgo);
}

export function periodOf(updated, now = new Date()) {
  const date = new Date(updated);
  if (date >= startOfDay(now)) return "Today";
  if (date >= startOfDay(now, 1)) return "Yesterday";
  if (date >= startOfDay(now, 7)) return "Previous 7 days";
  if (date >= startOfDay(now, 30)) return "Previous 30 days";
  const year = date.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return date.toLocaleDateString(undefined, { month: "long", year });
}

export function millisecondsToMidnight(now = new Date()) {
  return startOfDay(now, -1) - now;
}
