#!/usr/bin/env bash
# Put a built site into the branch that holds every version, and push the branch.
#
#   docs/_deploy/publish.sh BUILD NAME URL
#
# The branch is state, not history: one commit without a parent, so that the repository does not grow by a site
# with every push; any version can be built again from its tag. Another run may push in between: the lease then
# refuses this push, and this run starts again from what the other one left. The checkout and its index stay as
# they are.
set -euo pipefail
build=$(realpath "$1") name=$2 url=$3
branch=refs/heads/gh-pages
versions=$(realpath "$(dirname "$0")")/versions.py
repository=$(git rev-parse --absolute-git-dir)
source=$(git rev-parse --short HEAD)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for attempt in 1 2 3 4 5; do
  all=$work/$attempt
  mkdir "$all"
  old=""  # the lease on nothing: the branch must not exist
  if [ -n "$(git ls-remote origin "$branch")" ]; then
    git fetch --quiet --depth 1 origin "$branch"
    old=$(git rev-parse FETCH_HEAD)
    git archive "$old" | tar -x -C "$all"
  fi
  python3 "$versions" "$all" "$build" "$name" "$url"

  export GIT_INDEX_FILE="$all.index"
  git --git-dir="$repository" --work-tree="$all" -C "$all" add --all --force .
  tree=$(git write-tree)
  commit=$(git commit-tree "$tree" -m "Publish $name from $source")
  unset GIT_INDEX_FILE
  if git push --force-with-lease="$branch:$old" origin "$commit:$branch"; then
    exit 0
  fi
  echo "Attempt $attempt: another run published in between."
  sleep $((attempt * 2))
done
echo "$name was not published: five pushes to gh-pages were refused; see the messages above." >&2
exit 1
