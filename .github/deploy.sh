#!/usr/bin/env bash
# Deploying is a pull request that changes a version in environments/<name>/kustomization.yaml.
#
#   deploy.sh <environment> <version>        opens it (needs git and gh with GH_TOKEN)
#   deploy.sh edit <environment> <version>   changes the file and nothing else
#   deploy.sh version <environment>          prints what the environment runs
#   deploy.sh images <version>               prints the shop's images of a version
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "deploy.sh: $*" >&2
  exit 1
}

file() {
  [[ $1 =~ ^(dev|staging|prod)$ ]] || fail "there is no environment '$1'; there are dev, staging and prod"
  echo "environments/$1/kustomization.yaml"
}

# It becomes a part of a file, a branch's name and a message.
version_is_sane() {
  [[ $1 =~ ^(v[0-9]+\.[0-9]+\.[0-9]+|main-[0-9a-f]{7,40})$ ]] ||
    fail "'$1' is no version: it looks like v1.2.3 or main- and a commit"
}

version() {
  local found
  found=$(sed -n 's/^ *- SHOP_VERSION=//p' "$(file "$1")")
  [[ -n $found && $found != *$'\n'* ]] || fail "$(file "$1") does not say SHOP_VERSION= exactly once"
  version_is_sane "$found"
  echo "$found"
}

images() {
  sed -n 's/^  - name: \(ghcr\.io\/dhakacart\/[a-z]*\)$/\1/p' environments/dev/kustomization.yaml | sed "s/\$/:$1/"
}

edit() {
  local path
  path=$(file "$1")
  version_is_sane "$2"
  version "$1" >/dev/null
  sed -i -e "s/^\( *- SHOP_VERSION=\).*/\1$2/" -e "s/^\( *newTag: \).*/\1$2/" "$path"
}

case ${1-} in
  version) version "${2?which environment?}" ;;
  images) version_is_sane "${2?which version?}"; images "$2" ;;
  edit) edit "${2?which environment?}" "${3?which version?}" ;;
  *)
    environment=${1?which environment?} version=${2?which version?}
    before=$(version "$environment")
    edit "$environment" "$version"
    if git diff --quiet; then
      echo "$environment runs $version already"
      exit
    fi
    branch=deploy/$environment
    git config user.name 'DhakaCart releases'
    git config user.email 'releases@dhakacart.example'
    git switch -C "$branch"
    git commit -qam "Deploy $version to $environment"
    # One open pull request for each environment: the newest version takes the place of one that nobody merged.
    git push --force origin "$branch"
    title="Deploy $version to $environment"
    body="Merging this deploys \`$version\` to \`$environment\`, which runs \`$before\`. Reverting it goes back."
    if [[ $(gh pr list --head "$branch" --state open --json number --jq length) == 0 ]]; then
      gh pr create --base main --head "$branch" --title "$title" --body "$body"
    else
      gh pr edit "$branch" --title "$title" --body "$body"
    fi
    ;;
esac
