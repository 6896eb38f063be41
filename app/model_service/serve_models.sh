#!/bin/sh
# serve_models.sh PROGRAM ARGUMENTS...
# Starts the model server with flags for the models that MODEL_NAME names, separated by commas, and then the arguments.
# For several models, or if a version is a canary (SERVICE_CANARY), it writes their list into a temporary file.
program=$1
shift
folder=${MODEL_BASE_PATH:-/models}
case $MODEL_NAME$SERVICE_CANARY in
    *,* | *=*)
        list=$(mktemp)
        {
            echo "model_config_list {"
            echo "$MODEL_NAME" | tr ',' '\n' | sed 's/^ *//; s/ *$//' | while IFS= read -r name; do
                policy=
                case ,$SERVICE_CANARY in
                    # The canary and the version beside it.
                    *,"$name"/* | *" $name"/*) policy="model_version_policy { latest { num_versions: 2 } }" ;;
                esac
                echo "  config { name: \"$name\" base_path: \"$folder/$name\" model_platform: \"tensorflow\" $policy }"
            done
            echo "}"
        } > "$list"
        set -- "--model_config_file=$list" "$@"
        ;;
    *)
        set -- "--model_name=$MODEL_NAME" "--model_base_path=$folder/$MODEL_NAME" "$@"
        ;;
esac
# The shell replaces itself by the server, so that SIGTERM reaches the server.
exec "$program" "$@"
