#!/usr/bin/env node
/** Where the `reft` command begins. */

import { beginWithLargePages } from "./large-pages.js";

beginWithLargePages(process.argv.slice(2));
// Only now: a process that begins again has loaded nothing in vain.
await import("./reft.js");
